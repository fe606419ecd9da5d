// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// server is an SSH server in this process, of any kind.
type server struct {
	target   Target
	entry    string // of its host key, as on a card
	signer   ssh.Signer
	accepted atomic.Int32
}

// newKey makes a login or host key.
func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// listen answers every connection by serve.
func listen(t testing.TB, serve func(*server, net.Conn)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listenOn(t, l, serve)
}

func listenOn(t testing.TB, l net.Listener, serve func(*server, net.Conn)) *server {
	t.Helper()
	s := &server{signer: newKey(t)}
	s.entry = s.signer.PublicKey().Type() + " " + ssh.FingerprintSHA256(s.signer.PublicKey())
	host, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	s.target = Target{User: "alice", Host: host, Port: n}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { defer c.Close(); serve(s, c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

// house is who may come into a server, and how. The zero house with a key and a
// code is as it should be.
type house struct {
	key     ssh.PublicKey // alice's
	code    string        // hers, which works once
	prompt  string        // the stock one if empty
	prompts int           // how many are shown; 0 is 1
	change  func(*house, *ssh.ServerConfig)

	// Holes.
	keyAlone, anyKey, anyCode, reuse bool
	limited                          bool // the module refuses before it asks
	maxTries                         int

	mu    sync.Mutex
	used  bool
	tries []string // codes that were answered
}

func (h *house) answered() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.tries...)
}

var errRefused = errors.New("refused")

func (h *house) ask(_ ssh.ConnMetadata, client ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	if h.limited {
		return nil, errRefused
	}
	prompt := h.prompt
	if prompt == "" {
		prompt = stockPrompt
	}
	if _, err := client("", "", nil, nil); err != nil { // as PAM's messages come
		return nil, err
	}
	right := false
	for range max(1, h.prompts) {
		got, err := client("", "", []string{prompt}, []bool{false})
		if err != nil {
			return nil, err
		}
		h.mu.Lock()
		h.tries = append(h.tries, got[0])
		right = h.anyCode || got[0] == h.code && (!h.used || h.reuse)
		h.used = true
		h.mu.Unlock()
	}
	if !right {
		return nil, errRefused
	}
	return nil, nil
}

func (h *house) serve(s *server, c net.Conn) {
	cfg := &ssh.ServerConfig{
		MaxAuthTries: h.maxTries,
		Config: ssh.Config{ // the package's defaults have weak ones
			KeyExchanges: []string{"mlkem768x25519-sha256", "curve25519-sha256"},
			MACs:         []string{"hmac-sha2-256-etm@openssh.com"},
		},
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !h.anyKey && string(key.Marshal()) != string(h.key.Marshal()) {
				return nil, errRefused
			}
			if h.keyAlone {
				return nil, nil
			}
			return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{KeyboardInteractiveCallback: h.ask}}
		},
	}
	cfg.AddHostKey(s.signer)
	if h.change != nil {
		h.change(h, cfg)
	}
	conn, chans, reqs, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	for ch := range chans {
		_ = ch.Reject(ssh.Prohibited, "")
	}
	_ = conn.Wait()
}

// hang reads and says nothing.
func hang(_ *server, c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// says writes a text and then does what comes after.
func says(text string, then func(*server, net.Conn)) func(*server, net.Conn) {
	return func(s *server, c net.Conn) {
		_, _ = c.Write([]byte(text))
		then(s, c)
	}
}

// drained reads a little, so that what was written arrives before the end.
func drained(_ *server, c net.Conn) {
	buf := make([]byte, 64)
	_, _ = c.Read(buf)
}
