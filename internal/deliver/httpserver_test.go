// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

const (
	serverName = "panel.example"
	caFile     = "/etc/ssl/certs/panel.pem"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a := &authority{key: key}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	return a
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue signs a certificate for a name; change may spoil it.
func (a *authority) issue(t testing.TB, name string, change func(*x509.Certificate)) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, k.Public(), a.key)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func (a *authority) tls(t testing.TB, name string, change func(*x509.Certificate)) *tls.Config {
	t.Helper()
	cert, key := a.issue(t, name, change)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	must(t, err)
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

// A panel is an HTTPS server and a channel that leads to it, under a name that
// stands for its address.
type panel struct {
	t    testing.TB
	tg   *target.Target
	ca   *authority
	srv  *httptest.Server
	c    policy.Channel
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	now  func() time.Time

	mu    sync.Mutex
	got   []request
	next  http.HandlerFunc // what the server does once it has read a request
	first http.HandlerFunc // what it does in the place of that
}

// A request is one that has arrived as a whole.
type request struct {
	method, uri string
	header      http.Header
	body        []byte
}

func newPanel(t testing.TB) *panel {
	t.Helper()
	tg, _ := targettest.New(t)
	return newPanelAt(t, tg)
}

func newPanelAt(t testing.TB, tg *target.Target) *panel {
	t.Helper()
	p := &panel{t: t, tg: tg, ca: newAuthority(t), now: time.Now}
	if tg != nil {
		targettest.Put(t, tg, caFile, p.ca.pem(), 0o644)
	}
	p.c = policy.Channel{Type: policy.ChannelHTTP, URL: "https://" + serverName + "/secretpath/{id}?sig=secretquery", CAFile: caFile,
		Headers: map[string]string{"X-Token": "secretheader"}}
	p.start(p.ca.tls(t, serverName, nil))
	return p
}

// start starts the server, in the place of the one that is there.
func (p *panel) start(config *tls.Config) {
	p.t.Helper()
	if p.srv != nil {
		p.srv.Close()
	}
	p.srv = httptest.NewUnstartedServer(p)
	p.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.srv.TLS = config
	p.srv.StartTLS()
	p.t.Cleanup(p.srv.Close)
	p.to(p.srv.Listener.Addr().String())
}

// to leads the channel to an address.
func (p *panel) to(addr string) {
	p.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

func (p *panel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	first := p.first
	p.mu.Unlock()
	if first != nil {
		first(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.got = append(p.got, request{r.Method, r.RequestURI, r.Header, body})
	next := p.next
	p.mu.Unlock()
	if next != nil {
		next(w, r)
	}
}

// answer makes the server say the same to everybody.
func (p *panel) answer(code int, header map[string]string, body string) {
	p.then(func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(code)
		io.WriteString(w, body)
	})
}

func (p *panel) then(next http.HandlerFunc) {
	p.mu.Lock()
	p.next = next
	p.mu.Unlock()
}

func (p *panel) requests() []request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]request(nil), p.got...)
}

func (p *panel) channel() *web {
	return &web{c: p.c, read: channelFiles(p.c, p.tg), now: func() time.Time { return p.now() }, dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return p.dial(ctx, network, addr)
	}}
}

// send sends alice's envelope.
func (p *panel) send() error {
	p.t.Helper()
	i := item()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return p.channel().Send(ctx, i)
}
