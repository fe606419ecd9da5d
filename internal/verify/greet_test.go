// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// banner serves one that shows a text before a login.
func banner(text string, change func(*ssh.ServerConfig)) func(*server, net.Conn) {
	h := &house{change: func(_ *house, cfg *ssh.ServerConfig) {
		cfg.BannerCallback = func(ssh.ConnMetadata) string { return text }
		if change != nil {
			change(cfg)
		}
	}}
	return h.serve
}

func TestGreet(t *testing.T) {
	s := listen(t, banner("hello\nthere\n", nil))
	g, err := Greet(t.Context(), s.target, time.Minute)
	if err != nil || g.Banner != "hello\nthere\n" || g.HostKey() != s.entry {
		t.Fatalf("%+v, %v", g, err)
	}
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	other := "ssh-ed25519 SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for name, tt := range map[string]struct {
		card []string
		want error
	}{
		"on the card":              {[]string{other, s.entry + " root@web-1"}, nil},
		"another":                  {[]string{other}, ErrHostKey},
		"none":                     {nil, ErrHostKey},
		"the print of other types": {[]string{strings.Replace(s.entry, "ssh-ed25519", "ssh-rsa", 1)}, ErrHostKey},
	} {
		if err := g.Shown(tt.card); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGreetFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		serve  func(*server, net.Conn)
		banner string
		want   error
	}{
		"no banner":           {banner("", nil), "", nil},
		"lets in who comes":   {banner("hello", func(c *ssh.ServerConfig) { c.NoClientAuth = true }), "hello", nil},
		"a long banner":       {banner(strings.Repeat("a", 200<<10), nil), strings.Repeat("a", 200<<10), nil},
		"weak":                {banner("hello", func(c *ssh.ServerConfig) { c.KeyExchanges = []string{"diffie-hellman-group14-sha1"} }), "", ErrAlgorithms},
		"hangs":               {hang, "", ErrUnreachable},
		"another protocol":    {says("SSH-1.5-Old\r\n", drained), "", ErrNotSSH},
		"hangs up":            {func(*server, net.Conn) {}, "", ErrUnreachable},
		"hangs up in the end": {says("SSH-2.0-x\r\n", drained), "", ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t, tt.serve)
			timeout := time.Minute
			if name == "hangs" {
				timeout = 700 * time.Millisecond
			}
			g, err := Greet(t.Context(), s.target, timeout)
			if !errors.Is(err, tt.want) || g.Banner != tt.banner {
				t.Errorf("%.100q, %v", g.Banner, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Greet(ctx, listen(t, hang).target, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// Whoever is in between shows a banner under a key of their own, and passes the next
// key exchange on to the true server. The banner does not become that one's.
func TestGreetTwoKeys(t *testing.T) {
	for name, want := range map[string]error{"the same key again": nil, "another key": ErrTwoKeys} {
		t.Run(name, func(t *testing.T) {
			wrote := make(chan struct{}, 1000)
			h := &house{change: func(_ *house, cfg *ssh.ServerConfig) {
				cfg.RekeyThreshold = 256 // bytes, so that the banner makes the next exchange due
				cfg.BannerCallback = func(ssh.ConnMetadata) string {
					if want != nil {
						cfg.AddHostKey(newKey(t))
					}
					return strings.Repeat("hello\n", 100)
				}
				var conn ssh.ServerPreAuthConn
				cfg.PreAuthConnCallback = func(c ssh.ServerPreAuthConn) { conn = c }
				// The packet after that begins it. Once the next one, which is its own, is
				// out, the answer to the login waits for its end.
				cfg.AuthLogCallback = func(ssh.ConnMetadata, string, error) {
					for len(wrote) > 0 {
						<-wrote
					}
					_ = conn.SendAuthBanner("there\n")
					<-wrote
					<-wrote
				}
			}}
			s := listen(t, func(s *server, c net.Conn) { h.serve(s, watched{c, wrote}) })
			g, err := Greet(t.Context(), s.target, time.Minute)
			if !errors.Is(err, want) || g.Banner == "" || g.HostKey() != s.entry {
				t.Errorf("%.20q, %s, %v", g.Banner, g.HostKey(), err)
			}
		})
	}
}

// watched tells of each packet that is written, which is a Write of its own.
type watched struct {
	net.Conn
	wrote chan<- struct{}
}

func (w watched) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.wrote <- struct{}{}
	return n, err
}
