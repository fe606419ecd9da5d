// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrHostKey means that a card names other host keys than a server has shown.
var ErrHostKey = errors.New("is not of the server that was asked")

// ErrTwoKeys means that a server has shown a second host key in one connection: a
// banner that came under the first is not that of whoever has the second.
var ErrTwoKeys = errors.New("has shown two host keys in one connection; somebody may be between you and the server")

// greetVersion names the caller in the server's log.
const greetVersion = "SSH-2.0-totpctl_fetch"

// maxBanner bounds what of a server's banners is kept. sshd(8) shows no file
// that is larger.
const maxBanner = 1 << 20

// Greeting is what a server shows to everybody before a login.
type Greeting struct {
	Target Target
	Banner string // RFC 4252, section 5.4; it is whatever the server sends

	key ssh.PublicKey
}

// Greet connects to a server and hangs up once it has been greeted. It logs in
// nowhere: it asks for the methods there are, as the user of the target. A
// timeout of 0 is DefaultTimeout.
//
// Errors are ErrUnreachable, ErrNotSSH, ErrAlgorithms and ErrTwoKeys, and the
// context's.
func Greet(ctx context.Context, t Target, timeout time.Duration) (Greeting, error) {
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	g := Greeting{Target: t}
	r := &run{Options: Options{Target: t, Timeout: timeout}, addr: t.Addr()}
	r.report = newReport(t)
	greeted := false
	var banner strings.Builder
	var shown hostKeys
	ok := ssh.SupportedAlgorithms()
	cfg := &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: strong(ok.KeyExchanges), Ciphers: strong(ok.Ciphers), MACs: strong(ok.MACs)},
		User:              t.User,
		ClientVersion:     greetVersion,
		HostKeyAlgorithms: r.trust.algorithms(t.Addr(), false),
		// Any key will do: what it is worth depends on the card.
		HostKeyCallback: shown.add,
		BannerCallback: func(text string) error {
			if banner.Len()+len(text) > maxBanner {
				return errEnough
			}
			banner.WriteString(text)
			return nil
		},
		AuthCallback: func(*ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			greeted = true
			return nil, errEnough
		},
	}
	rec := &recorder{}
	err := r.connect(ctx, cfg, rec)
	h, bad := rec.hello()
	g.Banner = banner.String()
	var two bool
	g.key, two = shown.get()
	negotiation := new(ssh.AlgorithmNegotiationError)
	switch {
	case ctx.Err() != nil:
		return g, context.Cause(ctx)
	case two:
		return g, fmt.Errorf("host %q %w", t.Addr(), ErrTwoKeys)
	case err == nil, errors.Is(err, errEnough), greeted, g.Banner != "" && hungUp(err):
		return g, nil
	case errors.As(err, &negotiation):
		return g, fmt.Errorf("host %q %w that is not weak: as %s it has %s", t.Addr(), ErrAlgorithms,
			negotiation.What, list(negotiation.RequestedAlgorithms))
	case errors.Is(err, ErrUnreachable):
		return g, err
	case errors.Is(bad, errHello):
		return g, r.notSSH(h)
	case hungUp(err):
		return g, r.hungUpError(err, h)
	}
	return g, r.unreachable(context.Background(), err)
}

// hostKeys are those of one connection, which has a key exchange at its beginning
// and may have more. The party in between that made the first with a key of its own
// can pass a later one on to the true server, whose key it does not have.
type hostKeys struct {
	mu    sync.Mutex
	first ssh.PublicKey
	two   bool
}

// add is an ssh.HostKeyCallback.
func (h *hostKeys) add(_ string, _ net.Addr, key ssh.PublicKey) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil {
		h.first = key
	}
	if !bytes.Equal(h.first.Marshal(), key.Marshal()) {
		h.two = true
		return ErrTwoKeys
	}
	return nil
}

func (h *hostKeys) get() (key ssh.PublicKey, two bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.first, h.two
}

// HostKey is the key that the server has shown, as cards name it.
func (g Greeting) HostKey() string {
	return g.key.Type() + " " + ssh.FingerprintSHA256(g.key)
}

// Shown returns an error if none of a card's host keys is the one that the
// server has shown. It is ErrHostKey.
func (g Greeting) Shown(hostKeys []string) error {
	if len(hostKeys) == 0 {
		return fmt.Errorf("%w: it names no host key, and the server has shown %s", ErrHostKey, g.HostKey())
	}
	if _, err := (trust{card: hostKeys}).judge("", g.key); err != nil {
		return fmt.Errorf("%w: %w, and the server has shown %s", ErrHostKey, err, g.HostKey())
	}
	return nil
}
