// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/http"
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
}

// Bounds on what clients can make a server do.
const (
	maxConns    = 2048
	maxRequests = 512 // that are being stored
	requestTime = 30 * time.Second
	stopTime    = 10 * time.Second

	// What one client may store: a burst, and then so many envelopes a minute.
	clientBurst     = 32
	clientPerMinute = 12
)

// Serve is the provider's end of the channel http. It takes
//
//	PUT /CLIENT/ID
//	X-Token: TOKEN                  or Authorization: Bearer TOKEN
//	X-Signature: sha256=HEX         HMAC-SHA256 of the body, in place of a token
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
		limits:      map[string]*rate.Limiter{},
		complaints:  rate.NewLimiter(1, maxComplaint),
		credentials: watched[credentials]{names: []string{r.HTTP.Credentials}, secret: true, logf: logf, parse: func(b [][]byte) (credentials, error) { return parseCredentials(b[0]) }},
		certificate: watched[*tls.Certificate]{names: []string{r.HTTP.Cert, r.HTTP.Key}, logf: logf, parse: keyPair},
	}
	for _, load := range []func() error{s.credentials.load, s.certificate.load} {
		if err := load(); err != nil {
			return err
		}
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
		ReadHeaderTimeout: requestTime / 3,
		ReadTimeout:       requestTime,
		WriteTimeout:      2 * requestTime,
		IdleTimeout:       2 * requestTime,
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
	ended := make(chan error, 1)
	go func() { ended <- srv.ServeTLS(netutil.LimitListener(l, maxConns), "", "") }()
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
	slots       chan struct{}

	limitsMu sync.Mutex
	limits   map[string]*rate.Limiter // by client

	complaints *rate.Limiter
	unsaid     int // complaints that were not logged; under limitsMu
}

// maxLimits is how many clients' limits are remembered. One more, and all have
// their burst again.
const maxLimits = 1 << 16

// within counts an envelope of a client, and tells whether it may have one more.
func (s *server) within(client string) bool {
	s.limitsMu.Lock()
	defer s.limitsMu.Unlock()
	l := s.limits[client]
	if l == nil {
		if len(s.limits) >= maxLimits {
			clear(s.limits)
		}
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
