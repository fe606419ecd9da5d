// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"crypto/rsa"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// minRSA is the shortest RSA key that is accepted for a login. An image whose sshd
// accepts shorter ones has been built to do so, and they are too weak all the same.
const minRSA = 2048

// A loginKey is one line of authorized_keys.
type loginKey struct {
	ssh.PublicKey
	options []string
}

// forced reports whether a login with the key runs one fixed command.
func (k loginKey) forced() bool {
	return slices.ContainsFunc(k.options, func(o string) bool { return optionName(o) == "command" })
}

// authority reports whether the key signs the certificates of other keys.
func (k loginKey) authority() bool { return slices.Contains(k.options, "cert-authority") }

func optionName(option string) string {
	name, _, _ := strings.Cut(option, "=")
	return strings.ToLower(name)
}

// keyOptions are those of sshd(8), AUTHORIZED_KEYS FILE FORMAT. sshd ignores a line
// with any other.
var keyOptions = []string{
	"agent-forwarding", "cert-authority", "command", "environment", "expiry-time", "from", "no-agent-forwarding", "no-port-forwarding", "no-pty",
	"no-touch-required", "no-user-rc", "no-x11-forwarding", "permitlisten", "permitopen", "port-forwarding", "principals", "pty", "restrict",
	"tunnel", "user-rc", "verify-required", "x11-forwarding",
}

// CheckSSHKey returns an [*Error] if sshd does not accept a line of authorized_keys as
// a login key. Its rule is ErrNotSSHKey or ErrPrivateKey where the line holds no public
// key at all.
func CheckSSHKey(line string) error {
	if _, e := sshKey(line); e != nil {
		return e
	}
	return nil
}

// HasSSHKeyType reports whether a text has the type of an SSH public key as a word,
// with another word after it: it is a line of authorized_keys, with options or without,
// and not the name of a file.
func HasSSHKeyType(text string) bool {
	words := strings.Fields(text)
	return slices.ContainsFunc(words[:max(0, len(words)-1)], func(word string) bool {
		return keyType.MatchString(word)
	})
}

// keyType are the types of OpenSSH's public keys and certificates.
var keyType = regexp.MustCompile(`^(ssh-(rsa|dss|ed25519|ed448|xmss)|ecdsa-sha2-nistp\d+|(webauthn-)?sk-(ssh-ed25519|ecdsa-sha2-nistp256))(-cert-v\d+)?(@openssh\.com)?$`)

// sshKey reads one line of authorized_keys, and refuses what sshd does not accept as
// a login key.
func sshKey(line string) (loginKey, *Error) {
	const fix = "give the one line of a file that ends in .pub"
	if strings.Contains(line, "PRIVATE KEY") || strings.Contains(line, "PuTTY-User-Key-File") {
		return loginKey{}, &Error{Rule: ErrPrivateKey, Fix: "keep it to yourself, and give the line of the file that ends in .pub"}
	}
	if strings.ContainsFunc(line, func(r rune) bool {
		return r < ' ' && r != '\t' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfffd
	}) {
		return loginKey{}, &Error{Rule: ErrNotSSHKey, Fix: fix}
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(rest) > 0 || strings.TrimSpace(line) != line {
		return loginKey{}, &Error{Value: abbreviate(line), Rule: ErrNotSSHKey, Fix: fix}
	}
	k := loginKey{key, options}
	if key.Type() == "ssh-dss" {
		return loginKey{}, &Error{Value: key.Type(), Rule: ErrKeyKind, Fix: "use an ed25519 key: ssh-keygen -t ed25519"}
	}
	if _, is := key.(*ssh.Certificate); is {
		return loginKey{}, &Error{Value: key.Type(), Rule: ErrCertificate, Fix: "give the public key itself, without -cert in the file's name, or the key of the CA with the option cert-authority"}
	}
	if bits := rsaBits(key); bits > 0 && bits < minRSA {
		return loginKey{}, &Error{Value: fmt.Sprintf("%s, %d bits", key.Type(), bits), Rule: ErrWeakKey, Fix: "use an ed25519 key: ssh-keygen -t ed25519"}
	}
	for _, o := range options {
		if !slices.Contains(keyOptions, optionName(o)) {
			return loginKey{}, &Error{Value: abbreviate(o), Rule: ErrKeyOption, Fix: "use the options of sshd(8), AUTHORIZED_KEYS FILE FORMAT, or none"}
		}
	}
	return k, nil
}

// rsaBits returns the size of an RSA key, 0 of any other.
func rsaBits(key ssh.PublicKey) int {
	if k, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := k.CryptoPublicKey().(*rsa.PublicKey); ok {
			return k.N.BitLen()
		}
	}
	return 0
}

// strictTypes are the kinds of keys that an image with sshd.algorithms: strict
// accepts, and strictRSA is the size of RSA keys there, as its sshd has them
// (RequiredRSASize, from OpenSSH 9.1 on).
var strictTypes = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoRSA}

const strictRSA = 3072

// accepts returns an error if sshd of the image refuses the key. A nil image accepts
// every key.
func (i *Image) accepts(k loginKey) *Error {
	if i == nil || i.policy.SSHD.Algorithms != policy.AlgorithmsStrict || k.authority() {
		return nil
	}
	const fix = "use an ed25519 key: ssh-keygen -t ed25519, or bake the image with algorithms = \"compatible\""
	if !slices.Contains(strictTypes, k.Type()) {
		return &Error{Value: k.Type(), Rule: ErrImageRefusesKey, Fix: fix}
	}
	if bits := rsaBits(k.PublicKey); bits > 0 && bits < strictRSA && i.requiresRSASize() {
		return &Error{Value: fmt.Sprintf("%s, %d bits", k.Type(), bits), Rule: ErrImageRefusesKey, Fix: fix}
	}
	return nil
}

// requiresRSASize reports whether the image's sshd knows RequiredRSASize. One of an
// unknown version is taken to know it.
func (i *Image) requiresRSASize() bool {
	var major, minor int
	if n, err := fmt.Sscanf(i.openSSH, "%d.%d", &major, &minor); err != nil || n != 2 {
		return true
	}
	return major > 9 || major == 9 && minor >= 1
}
