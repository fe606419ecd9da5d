// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"cmp"
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
)

// HTTP are the settings of the end of the channel http.
type HTTP struct {
	// Addr is where to listen: HOST:PORT, or :PORT for all addresses.
	Addr string

	// Cert and Key are the PEM files of the certificate and its key. There is no
	// way to do without.
	Cert, Key string

	// Credentials is the file that tells who may deliver:
	//
	//	CLIENT token-sha256 HASH
	//	CLIENT hmac-sha256 KEY
	//
	// CLIENT "*" stands for every client that has no line of its own. All these
	// files are read again when they have changed.
	Credentials string

	// Quota is how many bytes of disk the clients that share the credential "*" may
	// fill together, in whole blocks and with their directories. Zero means
	// [DefaultQuota].
	Quota int64
}

// Bounds on what clients can make a server do.
const (
	maxConns    = 2048
	maxOfOne    = 512 // connections of one address
	maxRequests = 512 // that are being stored
	maxShared   = 384 // of these, of clients that share the credential "*"
	requestTime = 30 * time.Second
	idleTime    = 10 * time.Second // that a connection may take, or be left, without a request
	stopTime    = 10 * time.Second

	// What one client may store: a burst, and then so many envelopes a minute.
	clientBurst     = 32
	clientPerMinute = 12

	// What all those together may store who have no line of their own, whatever they
	// call themselves: ten thousand servers started at once, and then twenty a second.
	commonBurst     = 1 << 16
	commonPerMinute = 1200
)

// Serve is the provider's end of the channel http. It takes
//
//	PUT /CLIENT/ID
//	X-Token: TOKEN                  or Authorization: Bearer TOKEN
//	X-Totp-Signature: v1=HEX        see [frame.Sign]; instead of a token
//	X-Totp-User: USER               or ?user=USER; may be missing
//
// (or POST), whose body is an age file, binary or armored, of at most
// [frame.MaxPayload] bytes, and stores that as CLIENT/USER-ID.age, or
// CLIENT/ID.age, in Dir. The path may be /ID alone, for the credentials of "*".
// The answer is 201 when it is stored for good, and 200 if it was already; a line
// in it says "OK HASH", as on a virtio port, or "ERR" and a word. All else is
// refused by 4xx, or by 429 and 503 with Retry-After where a later try may
// succeed.
//
// It ends as [Run] does, and answers what it has begun first.
func Serve(ctx context.Context, o Options) error {
	return receive(ctx, o, (*receiver).serveHTTP)
}

func (r *receiver) serveHTTP(ctx context.Context) error {
	logf := r.logf
	s := &server{
		receiver:    r,
		slots:       make(chan struct{}, maxRequests),
		shared:      make(chan struct{}, maxShared),
		limits:      map[string]*rate.Limiter{},
		common:      rate.NewLimiter(rate.Every(time.Minute/commonPerMinute), commonBurst),
		complaints:  rate.NewLimiter(1, maxComplaint),
		quota:       quota{dir: r.Dir, limit: cmp.Or(r.HTTP.Quota, DefaultQuota), now: time.Now, logf: logf},
		credentials: watched[credentials]{names: []string{r.HTTP.Credentials}, secret: true, logf: logf, parse: func(b [][]byte) (credentials, error) { return parseCredentials(b[0]) }},
		certificate: watched[*tls.Certificate]{names: []string{r.HTTP.Cert, r.HTTP.Key}, logf: logf, parse: keyPair},
	}
	s.quota.own = s.hasLine
	for _, load := range []func() error{s.credentials.load, s.certificate.load} {
		if err := load(); err != nil {
			return err
		}
	}
	if err := s.quota.start(); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", r.HTTP.Addr)
	if err != nil {
		return err
	}
	r.logf("listening on https://%s", l.Addr())

	// Of HTTP/1 a connection has one request at a time, so that the number of
	// connections bounds all the rest.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: idleTime, // and the handshake's
		ReadTimeout:       requestTime,
		WriteTimeout:      2 * requestTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		Protocols:         &protocols,
		ErrorLog:          log.New(lineLog(func(line string) { s.complain("%s", line) }), "", 0),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return s.certificate.get(), nil
			},
		},
	}
	from := &crowd{Listener: l, most: r.mostOfOne, open: map[netip.Prefix]int{}, refuse: func(from netip.Prefix) {
		s.complain("more than %d connections of %s at once: one refused", r.mostOfOne, from)
	}}
	ended := make(chan error, 1)
	go func() { ended <- srv.ServeTLS(netutil.LimitListener(from, maxConns), "", "") }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if srv.Shutdown(last) != nil {
		srv.Close()
	}
	return ctx.Err()
}

func keyPair(b [][]byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(b[0], b[1])
	return &c, err
}

// server is the state that all requests share.
type server struct {
	*receiver
	credentials watched[credentials]
	certificate watched[*tls.Certificate]
	slots       chan struct{} // of all requests that are being stored
	shared      chan struct{} // of those of clients without a line of their own

	limitsMu sync.Mutex
	limits   map[string]*rate.Limiter // by client that has a line of its own
	common   *rate.Limiter            // of all others
	quota    quota                    // of all others

	complaints *rate.Limiter
	unsaid     int // complaints that were not logged; under limitsMu
}

// hasLine reports whether a client has a credential of its own.
func (s *server) hasLine(client string) bool {
	_, own := s.credentials.get()[client]
	return own
}

// within counts an envelope of a client, and reports whether it may send one more.
func (s *server) within(client string) bool {
	if !s.hasLine(client) {
		return s.common.Allow() // a new name is no new limit
	}
	s.limitsMu.Lock()
	defer s.limitsMu.Unlock()
	l := s.limits[client]
	if l == nil {
		l = rate.NewLimiter(rate.Every(time.Minute/clientPerMinute), clientBurst)
		s.limits[client] = l
	}
	return l.Allow()
}

// complain logs what anybody can cause as often as they like.
func (s *server) complain(format string, args ...any) {
	s.limitsMu.Lock()
	if !s.complaints.Allow() {
		s.unsaid++
		s.limitsMu.Unlock()
		return
	}
	unsaid := s.unsaid
	s.unsaid = 0
	s.limitsMu.Unlock()
	if unsaid > 0 {
		s.logf("%d more complaints were not logged", unsaid)
	}
	s.logf(format, args...)
}

// lineLog hands each line that is logged on.
type lineLog func(string)

func (f lineLog) Write(line []byte) (int, error) {
	f(printable(string(line)))
	return len(line), nil
}
