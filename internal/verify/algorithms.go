// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"fmt"
	"slices"
	"strings"
)

// Class is what an algorithm is worth.
type Class string

// The classes. Unknown is for names that are newer, or rarer, than this table.
const (
	Weak        Class = "weak"
	OK          Class = "ok"
	PostQuantum Class = "post-quantum"
	Unknown     Class = "unknown"
)

// Algorithm is one that a server offers.
type Algorithm struct {
	Name  string `json:"name"`
	Class Class  `json:"class"`
	Why   string `json:"why,omitempty"` // where it is weak
}

const (
	sha1     = "SHA-1"
	md5      = "MD5"
	cbc      = "CBC mode, open to padding oracles"
	small    = "64-bit blocks"
	shortTag = "64-bit tag"
	cutTag   = "truncated tag"
	group1   = "1024-bit group and SHA-1"
	dsa      = "DSA with 1024 bits and SHA-1"
	rc4      = "RC4"
	withdraw = "withdrawn"
	static   = "no forward secrecy"
	none     = "no protection"
)

// known are the algorithms of OpenSSH since 6 and those that other servers have,
// as ssh-audit judges them; a weak one with the reason.
var known = map[string]string{
	// Key exchange.
	"diffie-hellman-group1-sha1":             group1,
	"diffie-hellman-group14-sha1":            sha1,
	"diffie-hellman-group-exchange-sha1":     sha1,
	"rsa1024-sha1":                           group1,
	"rsa2048-sha256":                         static,
	"sntrup4591761x25519-sha512@tinyssh.org": withdraw,
	"curve25519-sha256":                      "",
	"curve25519-sha256@libssh.org":           "",
	"curve448-sha512":                        "",
	"ecdh-sha2-nistp256":                     "",
	"ecdh-sha2-nistp384":                     "",
	"ecdh-sha2-nistp521":                     "",
	"diffie-hellman-group14-sha256":          "",
	"diffie-hellman-group15-sha512":          "",
	"diffie-hellman-group16-sha512":          "",
	"diffie-hellman-group17-sha512":          "",
	"diffie-hellman-group18-sha512":          "",
	"diffie-hellman-group-exchange-sha256":   "",
	"mlkem768x25519-sha256":                  "",
	"mlkem768nistp256-sha256":                "",
	"mlkem1024nistp384-sha384":               "",
	"sntrup761x25519-sha512":                 "",
	"sntrup761x25519-sha512@openssh.com":     "",

	// Host keys.
	"ssh-rsa":                                     sha1,
	"ssh-dss":                                     dsa,
	"ssh-rsa-cert-v01@openssh.com":                sha1,
	"ssh-dss-cert-v01@openssh.com":                dsa,
	"rsa-sha2-256":                                "",
	"rsa-sha2-512":                                "",
	"ssh-ed25519":                                 "",
	"ssh-ed448":                                   "",
	"ecdsa-sha2-nistp256":                         "",
	"ecdsa-sha2-nistp384":                         "",
	"ecdsa-sha2-nistp521":                         "",
	"sk-ssh-ed25519@openssh.com":                  "",
	"sk-ecdsa-sha2-nistp256@openssh.com":          "",
	"rsa-sha2-256-cert-v01@openssh.com":           "",
	"rsa-sha2-512-cert-v01@openssh.com":           "",
	"ssh-ed25519-cert-v01@openssh.com":            "",
	"ecdsa-sha2-nistp256-cert-v01@openssh.com":    "",
	"ecdsa-sha2-nistp384-cert-v01@openssh.com":    "",
	"ecdsa-sha2-nistp521-cert-v01@openssh.com":    "",
	"sk-ssh-ed25519-cert-v01@openssh.com":         "",
	"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": "",

	// Ciphers.
	"chacha20-poly1305@openssh.com": "",
	"chacha20-poly1305":             "",
	"aes128-gcm@openssh.com":        "",
	"aes256-gcm@openssh.com":        "",
	"AEAD_AES_128_GCM":              "",
	"AEAD_AES_256_GCM":              "",
	"aes128-ctr":                    "",
	"aes192-ctr":                    "",
	"aes256-ctr":                    "",
	"aes128-cbc":                    cbc,
	"aes192-cbc":                    cbc,
	"aes256-cbc":                    cbc,
	"rijndael-cbc@lysator.liu.se":   cbc,
	"serpent256-cbc":                cbc,
	"twofish-cbc":                   cbc,
	"twofish128-cbc":                cbc,
	"twofish256-cbc":                cbc,
	"3des-cbc":                      small,
	"3des-ctr":                      small,
	"blowfish-cbc":                  small,
	"blowfish-ctr":                  small,
	"cast128-cbc":                   small,
	"cast128-ctr":                   small,
	"idea-cbc":                      small,
	"des-cbc":                       "56-bit key",
	"des-cbc@ssh.com":               "56-bit key",
	"arcfour":                       rc4,
	"arcfour128":                    rc4,
	"arcfour256":                    rc4,
	"none":                          none,

	// MACs.
	"hmac-sha2-256":                  "",
	"hmac-sha2-512":                  "",
	"hmac-sha2-256-etm@openssh.com":  "",
	"hmac-sha2-512-etm@openssh.com":  "",
	"umac-128@openssh.com":           "",
	"umac-128-etm@openssh.com":       "",
	"umac-64@openssh.com":            shortTag,
	"umac-64-etm@openssh.com":        shortTag,
	"hmac-sha2-256-96":               cutTag,
	"hmac-sha2-512-96":               cutTag,
	"hmac-sha1":                      sha1,
	"hmac-sha1-96":                   sha1,
	"hmac-sha1-etm@openssh.com":      sha1,
	"hmac-sha1-96-etm@openssh.com":   sha1,
	"hmac-md5":                       md5,
	"hmac-md5-96":                    md5,
	"hmac-md5-etm@openssh.com":       md5,
	"hmac-md5-96-etm@openssh.com":    md5,
	"hmac-ripemd160":                 withdraw,
	"hmac-ripemd160@openssh.com":     withdraw,
	"hmac-ripemd160-etm@openssh.com": withdraw,
}

// postQuantum are the key exchanges that a quantum computer does not open later.
var postQuantum = []string{
	"mlkem768x25519-sha256", "mlkem768nistp256-sha256", "mlkem1024nistp384-sha384",
	"sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com",
}

// Markers among the key exchanges: they offer something else than an exchange.
const (
	strictKex = "kex-strict-s-v00@openssh.com"
	extInfo   = "ext-info-s"
)

// classify looks up names, each once, without markers.
func classify(lists ...[]string) []Algorithm {
	all := []Algorithm{}
	for _, name := range slices.Concat(lists...) {
		if name == strictKex || name == extInfo || slices.ContainsFunc(all, func(a Algorithm) bool { return a.Name == name }) {
			continue
		}
		why, ok := known[name]
		class := OK
		switch {
		case !ok:
			class = Unknown
		case why != "":
			class = Weak
		case slices.Contains(postQuantum, name):
			class = PostQuantum
		}
		all = append(all, Algorithm{name, class, why})
	}
	return all
}

// strong leaves out what is weak.
func strong(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return known[name] != "" })
}

// summary counts the classes, and names what is weak.
func summary(all []Algorithm) (text string, weak bool) {
	var parts, names []string
	for _, class := range []Class{Weak, PostQuantum, OK, Unknown} {
		n := 0
		for _, a := range all {
			if a.Class == class {
				n++
				if class == Weak {
					names = append(names, a.Name+" ("+a.Why+")")
				}
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, class))
		}
	}
	text = strings.Join(parts, ", ")
	if len(names) > 0 {
		text += ": " + strings.Join(names, ", ")
	}
	if text == "" {
		text = "none"
	}
	return text, len(names) > 0
}

// terrapin tells which of a server's offers the prefix truncation of
// CVE-2023-48795 needs, where the strict key exchange does not prevent it.
func terrapin(h hello) (strict bool, open []string) {
	strict = slices.Contains(h.kex, strictKex)
	ciphers := slices.Concat(h.clientCiphers, h.ciphers)
	etm := slices.ContainsFunc(slices.Concat(h.clientMACs, h.macs), func(name string) bool { return strings.Contains(name, "-etm@") })
	for _, c := range ciphers {
		if (strings.HasPrefix(c, "chacha20-poly1305") || etm && strings.HasSuffix(c, "-cbc")) && !slices.Contains(open, c) {
			open = append(open, c)
		}
	}
	return strict, open
}
