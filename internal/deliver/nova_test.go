// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"unicode/utf8"
)

// A Nova is OpenStack's metadata service, as far as it takes a password: it
// follows nova/api/metadata/password.py.
type Nova struct {
	srv *httptest.Server

	mu            sync.Mutex
	password      string
	old           bool // it answers a GET from memory of when there was none
	got           []http.Request
	before, after http.HandlerFunc
}

// NewNova starts one that has no password yet.
func NewNova(t testing.TB) *Nova {
	n := new(Nova)
	n.srv = httptest.NewUnstartedServer(n)
	n.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	n.srv.Start()
	t.Cleanup(n.srv.Close)
	return n
}

// Before says what it does in the place of all else.
func (n *Nova) Before(do http.HandlerFunc) { n.set(&n.before, do) }

// After says what it does, in the place of an answer, when it has kept a password.
func (n *Nova) After(do http.HandlerFunc) { n.set(&n.after, do) }

func (n *Nova) set(field *http.HandlerFunc, do http.HandlerFunc) {
	n.mu.Lock()
	*field = do
	n.mu.Unlock()
}

// Addr is where it listens.
func (n *Nova) Addr() string { return n.srv.Listener.Addr().String() }

// Password is what it has kept.
func (n *Nova) Password() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.password
}

func (n *Nova) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, n.Addr())
}

func (n *Nova) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	before, after := n.before, n.after
	n.got = append(n.got, *r)
	n.mu.Unlock()
	switch {
	case before != nil:
		before(w, r)
	case r.URL.Path != "/openstack/latest/password":
		w.WriteHeader(http.StatusNotFound)
	case n.handle(w, r) && after != nil:
		after(w, r)
	}
}

// handle reports whether it has kept a password.
func (n *Nova) handle(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case r.Method == http.MethodGet && !n.old:
		io.WriteString(w, n.password)
	case r.Method == http.MethodGet:
	case r.Method != http.MethodPost, r.ContentLength < 0:
		w.WriteHeader(http.StatusBadRequest)
	case n.password != "":
		w.WriteHeader(http.StatusConflict)
	case len(body) > 4*255, !utf8.Valid(body):
		w.WriteHeader(http.StatusBadRequest)
	default:
		n.password = string(body)
		return true
	}
	return false
}
