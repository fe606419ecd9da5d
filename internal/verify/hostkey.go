// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// errOtherHostKey ends a connection to a server that is not the expected one.
var errOtherHostKey = errors.New("another host key")

// trust is what host keys are compared with.
type trust struct {
	card  []string // entries "type SHA256:FINGERPRINT ..."
	known *KnownHosts
}

// judge says what knows a key: "card", "known_hosts", or nothing. The error is
// for a key that is not the expected one, and says which is.
func (t trust) judge(host string, key ssh.PublicKey) (by string, err error) {
	if len(t.card) > 0 {
		var want []string
		for _, entry := range t.card {
			f := strings.Fields(entry)
			if len(f) < 2 {
				continue
			}
			if f[0] == key.Type() && f[1] == ssh.FingerprintSHA256(key) {
				return "card", nil
			}
			want = append(want, f[0]+" "+f[1])
		}
		return "", fmt.Errorf("the card has %s", strings.Join(want, ", "))
	}
	if t.known == nil {
		return "", nil
	}
	if r, ok := t.known.Revoked(key); ok {
		return "", fmt.Errorf("revoked by %q, line %d", r.File, r.Line)
	}
	keys := t.known.Keys(host)
	if len(keys) == 0 {
		return "", nil
	}
	for _, k := range keys {
		if bytes.Equal(k.Key.Marshal(), key.Marshal()) {
			return "known_hosts", nil
		}
	}
	k := keys[0]
	return "", fmt.Errorf("%q, line %d, has %s %s", k.File, k.Line, k.Key.Type(), ssh.FingerprintSHA256(k.Key))
}

// types are the types of the keys that are known of a host; none: not known.
func (t trust) types(host string) []string {
	var types []string
	for _, entry := range t.card {
		typ, _, _ := strings.Cut(entry, " ")
		types = append(types, typ)
	}
	if t.known != nil {
		for _, k := range t.known.Keys(host) {
			types = append(types, k.Key.Type())
		}
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// preference is by type: a short key that needs no randomness to sign comes
// first. x/crypto/ssh begins with RSA.
var preference = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// algorithms are those that a client asks for to be shown a key that is known.
// Certificates are none of them. Weak ones come last, if at all.
func (t trust) algorithms(host string, weak bool) []string {
	offered := slices.Clone(preference)
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !slices.Contains(offered, a) {
			offered = append(offered, a)
		}
	}
	if weak {
		offered = append(offered, ssh.InsecureAlgorithms().HostKeys...)
	}
	types := t.types(host)
	return slices.DeleteFunc(offered, func(a string) bool {
		if strings.Contains(a, "-cert-") {
			return true
		}
		if strings.HasPrefix(a, "rsa-sha2-") {
			a = ssh.KeyAlgoRSA
		}
		return len(types) > 0 && !slices.Contains(types, a)
	})
}

// checkHostKey is the callback of every connection. The first one makes the row.
func (r *run) checkHostKey(host string, _ net.Addr, key ssh.PublicKey) error {
	by, err := r.trust.judge(host, key)
	shown := key.Type() + " " + ssh.FingerprintSHA256(key)
	first := r.report.HostKey == nil
	if first {
		r.report.HostKey = &HostKey{Type: key.Type(), Fingerprint: ssh.FingerprintSHA256(key), VerifiedBy: by}
	}
	switch {
	case err != nil:
		r.wrong(rowHostKey, shown, err.Error()+"; it is another server, or one that was made anew")
		r.report.HostKey.VerifiedBy = ""
		return errOtherHostKey
	case by == "" && !first:
		return errOtherHostKey // an unknown server gets one connection
	case rsaBits(key) > 0 && rsaBits(key) < 2048:
		r.wrong(rowHostKey, shown, fmt.Sprintf("%d bits are weak, 2048 are the least", rsaBits(key)))
	case by == "":
		r.report.set(rowHostKey, StatusNotTried, shown+", unverified", "nothing knows it: name the card by --card, or a file by --known-hosts")
	default:
		r.ok(rowHostKey, shown+", as in "+map[string]string{"card": "the card", "known_hosts": "known_hosts"}[by])
	}
	return nil
}

// verified tells whether the server is the expected one.
func (r *run) verified() bool { return r.report.HostKey != nil && r.report.HostKey.VerifiedBy != "" }

func rsaBits(key ssh.PublicKey) int {
	if k, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := k.CryptoPublicKey().(*rsa.PublicKey); ok {
			return k.N.BitLen()
		}
	}
	return 0
}
