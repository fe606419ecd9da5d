// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// Keys made for these tests, and the fingerprints that ssh-keygen -l prints.
const (
	ed25519Blob = "AAAAC3NzaC1lZDI1NTE5AAAAIBIHhzZBnX6myyvYcYsIp3i7XdSB1RyF7mcBJ3dkk4YK"
	ecdsaBlob   = "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFYMuD1TkB34eX5FzLurpeD/dH/7egNV+xS4a/O8bt0uYMaQIpQWRqR7KhM2ViBCW4YB07/zWYfeLRdbGSCRsYU="
	rsaBlob     = "AAAAB3NzaC1yc2EAAAADAQABAAABgQCqjWMfMzqJbiQ8UFUdj852aPJtDyfmujrksY+AWCw3mrVGuPvd6kjmvp3abB8ymCTY4VxB7mW5M69ndlHjQxDLl73nmD9tG0TwOyO+O9qMiDF45eFWj++6yYToXeve3frdfu9/kCnaLK2mOLU0b8fV/8qi3r+uB+iExwz2Ekxfczr0JmHCzxxlceFCi/d8OHMhHPaoDSI7bTv39TRFQehDkWQtJonZVLYYacvg7/Lf7Ad/NhV+xYNp28QeRACKl3Redm0/eomX5ZZzAiWYIucSSN/UMIKkZSBaAW5C1+CFIht4pW7KYikPVgTngdKLGJZy0mFBYUQjSg52at07TmFFzIvLMo0/VDFqb2nJmwB6dre/4MZxpfKpP7PzdZDKFXWw9g9mdQmUVvy4PDY7c2BTzFGoIkDZtxtLhYuzfJ/aZoO0mxqPvNHHlJJ9HIThnH1ZOGe3jPq7rLYlai39S1+9GL0EyLO6H3GGJSWjvjpsfrSTtJaIwQsi7J4bAyzvS0k="

	ed25519Entry = "ssh-ed25519 SHA256:5QsdFNS1SV9zuijo1UjmXyCn1gjJMtz3YFYSJM6A5vc " + ed25519Blob
	ecdsaEntry   = "ecdsa-sha2-nistp256 SHA256:Ary02geI4Xz1IxEEKIv3Y+Rp1lOp1hNzKDhtIyheoW0 " + ecdsaBlob
	rsaEntry     = "ssh-rsa SHA256:Cb69hOp6T91YRXFOWNFY5sfLRia42opgR8iResZmjpk"
)

func TestHostKey(t *testing.T) {
	for _, tt := range []struct {
		line, want string
		err        error
	}{
		{line: "ssh-ed25519 " + ed25519Blob, want: ed25519Entry},
		{line: "ssh-ed25519 " + ed25519Blob + " root@web-1\n", want: ed25519Entry},
		{line: "ecdsa-sha2-nistp256 " + ecdsaBlob, want: ecdsaEntry},
		{line: "ssh-rsa " + rsaBlob, want: rsaEntry},
		{line: strings.Repeat("k", 41) + " " + ed25519Blob, err: card.ErrHostKey},
		{line: "", err: card.ErrHostKey},
		{line: "ssh-ed25519", err: card.ErrHostKey},
		{line: "ssh-ed25519 AAAA", err: card.ErrHostKey},
		{line: "ssh-rsa " + ed25519Blob, err: card.ErrHostKey},
		{line: "ssh-ed25519 " + strings.TrimSuffix(ed25519Blob, "YK"), err: card.ErrHostKey},
		{line: "ssh-\x1b[31m " + ed25519Blob, err: card.ErrHostKey},
	} {
		got, err := card.HostKey(tt.line)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("HostKey(%q) = %q, %v; want %q, %v", tt.line, got, err, tt.want, tt.err)
		}
	}
}

func TestKnownHosts(t *testing.T) {
	ed, ec := " ssh-ed25519 "+ed25519Blob, " ecdsa-sha2-nistp256 "+ecdsaBlob
	for _, tt := range []struct {
		addr string
		want string // the host part of both lines
		err  error
	}{
		{addr: "203.0.113.7", want: "203.0.113.7"},
		{addr: "203.0.113.7:22", want: "203.0.113.7"},
		{addr: "Web-1.Example.COM:2222", want: "[web-1.example.com]:2222"},
		{addr: "2001:db8::1", want: "2001:db8::1"},
		{addr: "[2001:db8::1]", want: "2001:db8::1"},
		{addr: "[2001:DB8::1]:22", want: "2001:db8::1"},
		{addr: "[2001:db8::1]:2222", want: "[2001:db8::1]:2222"},
		{addr: "[fe80::1%eth0]:2222", want: "[fe80::1%eth0]:2222"},
		{addr: "", err: card.ErrAddress},
		{addr: ":22", err: card.ErrAddress},
		{addr: "a b", err: card.ErrAddress},
		{addr: "a\nb", err: card.ErrAddress},
		{addr: "*", err: card.ErrAddress},
		{addr: "a,b", err: card.ErrAddress},
		{addr: "!a", err: card.ErrAddress},
		{addr: "@cert-authority", err: card.ErrAddress},
		{addr: "#a", err: card.ErrAddress},
		{addr: "|1|a", err: card.ErrAddress},
		{addr: "-oProxyCommand=x", err: card.ErrAddress},
		{addr: "a:0", err: card.ErrAddress},
		{addr: "a:65536", err: card.ErrAddress},
		{addr: "a:ssh", err: card.ErrAddress},
		{addr: "[::1", err: card.ErrAddress},
		{addr: strings.Repeat("a", 254), err: card.ErrAddress},
	} {
		got, err := sample().KnownHosts(tt.addr)
		var want []string
		if tt.err == nil {
			want = []string{tt.want + ed, tt.want + ec}
		}
		if !errors.Is(err, tt.err) || !cmp.Equal(got, want) {
			t.Errorf("KnownHosts(%q) = %q, %v; want %q, %v", tt.addr, got, err, want, tt.err)
		}
	}

	c := sample()
	c.HostKeys = []string{rsaEntry}
	if _, err := c.KnownHosts("web-1"); !errors.Is(err, card.ErrNoHostKey) {
		t.Errorf("with a fingerprint alone: %v; want ErrNoHostKey", err)
	}
}
