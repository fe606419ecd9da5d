// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package access

import (
	"crypto/rsa"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// keyRules are what sshd demands of a key.
type keyRules struct {
	now      time.Time
	accepted []string // signature algorithms, or patterns of them; nil: all
	rsaBits  int
}

// minimumRSA is OpenSSH's own limit, SSH_RSA_MINIMUM_MODULUS_SIZE.
const minimumRSA = 1024

func newKeyRules(s settings, now time.Time) keyRules {
	r := keyRules{now: now, rsaBits: minimumRSA}
	if list := s.value("pubkeyacceptedalgorithms"); list != "" {
		r.accepted = strings.Split(list, ",")
	}
	if n, err := strconv.Atoi(s.value("requiredrsasize")); err == nil {
		r.rsaBits = max(n, minimumRSA)
	}
	return r
}

// A keyList is what one file of keys has for the user.
type keyList struct {
	good     bool // a key that opens a session from everywhere
	from, ca bool // one that does from some addresses, or for holders of a certificate
	bad      []Reason
}

// judge reads a file of keys up to the first good one. Each line is looked at
// once.
func (r keyRules) judge(text []byte) keyList {
	var l keyList
	for line := range strings.Lines(string(text)) {
		line = strings.TrimLeft(line, " \t\r\n\f")
		if line == "" || line[0] == '#' {
			continue
		}
		k := r.line(line)
		switch {
		case k.why != "":
			if !slices.Contains(l.bad, k.why) {
				l.bad = append(l.bad, k.why)
			}
		case k.ca:
			l.ca = true
		case k.from:
			l.from = true
		default:
			l.good = true
			return l
		}
	}
	if len(l.bad) == 0 {
		l.bad = []Reason{KeysEmpty}
	}
	return l
}

// A keyLine is a line of a file of keys: why it is of no use, or for whom it is.
type keyLine struct {
	why      Reason
	ca, from bool
}

func (r keyRules) line(line string) keyLine {
	key := parseKey(line)
	options := keyOptions{}
	if key == nil {
		end := endOfOptions(line)
		if end < 0 {
			return keyLine{why: KeyMalformed}
		}
		if key = parseKey(strings.TrimLeft(line[end:], " \t")); key == nil {
			return keyLine{why: KeyMalformed}
		}
		var ok bool
		if options, ok = parseOptions(line[:end]); !ok {
			return keyLine{why: KeyOptions}
		}
	}
	l := keyLine{ca: options.ca, from: options.from}
	switch {
	case !options.expiry.IsZero() && r.now.After(options.expiry):
		l.why = KeyExpired
	case options.forced:
		l.why = KeyForced
	case isCertificate(key) && !l.ca:
		l.why = KeyCertificate
	case tooShort(key, r.rsaBits):
		l.why = KeyTooShort
	case !l.ca && !r.accepts(key.Type()):
		l.why = KeyType
	}
	return l
}

// accepts reports whether sshd takes a signature of a key of this type.
func (r keyRules) accepts(kind string) bool {
	algorithms := []string{kind}
	if kind == ssh.KeyAlgoRSA {
		algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	}
	return r.accepted == nil || slices.ContainsFunc(r.accepted, func(p string) bool {
		return slices.ContainsFunc(algorithms, func(a string) bool { return match(p, a) })
	})
}

func isCertificate(key ssh.PublicKey) bool {
	_, ok := key.(*ssh.Certificate)
	return ok
}

func tooShort(key ssh.PublicKey, bits int) bool {
	k, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return false
	}
	pub, ok := k.CryptoPublicKey().(*rsa.PublicKey)
	return ok && pub.N.BitLen() < bits
}

// parseKey reads a type and a blob that agree, and ignores what follows.
func parseKey(s string) ssh.PublicKey {
	kind, rest, _ := strings.Cut(strings.ReplaceAll(firstFields(s), "\t", " "), " ")
	blob, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
	if err != nil || rest == "" {
		return nil
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil || key.Type() != kind {
		return nil
	}
	return key
}

// firstFields cuts a line behind its second word.
func firstFields(s string) string {
	s = strings.TrimRight(s, " \t\r\n")
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s
	}
	j := i + len(s[i:]) - len(strings.TrimLeft(s[i:], " \t"))
	if k := strings.IndexAny(s[j:], " \t"); k >= 0 {
		return s[:i] + " " + s[j:j+k]
	}
	return s[:i] + " " + s[j:]
}

// endOfOptions finds the blank behind the options of a line, as
// sshkey_advance_past_options of OpenSSH; -1 if a quote is not closed.
func endOfOptions(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && (s[i] == ' ' || s[i] == '\t'):
			return i
		}
	}
	if quoted {
		return -1
	}
	return len(s)
}

// keyOptions are the options of a key that decide about a login.
type keyOptions struct {
	ca, from, forced bool
	expiry           time.Time
}

// flags are the options without a value, and whether "no-" may stand before them.
var flags = map[string]bool{
	"restrict": false, "cert-authority": false, "port-forwarding": true, "agent-forwarding": true, "x11-forwarding": true,
	"touch-required": true, "verify-required": true, "pty": true, "user-rc": true,
}

// values are the options with a value, and whether they may be repeated.
var values = map[string]bool{
	"command": false, "principals": false, "from": false, "expiry-time": true, "environment": true,
	"permitopen": true, "permitlisten": true, "tunnel": true,
}

// parseOptions reads the options of a key as sshauthopt_parse of OpenSSH, which
// refuses the key where it does not know one. The values of forwarding options are
// not checked.
func parseOptions(s string) (o keyOptions, ok bool) {
	seen := map[string]bool{}
	for s != "" {
		end := strings.IndexAny(s, ",=")
		if end < 0 {
			end = len(s)
		}
		name := strings.ToLower(s[:end])
		value := ""
		if s = s[end:]; strings.HasPrefix(s, "=") {
			if value, s, ok = dequote(s[1:]); !ok {
				return o, false
			}
			repeat, known := values[name]
			if !known || seen[name] && !repeat {
				return o, false
			}
		} else if !isFlag(name) {
			return o, false
		}
		seen[name] = true
		if !o.set(name, value) {
			return o, false
		}
		if s == "" {
			break
		}
		if s[0] != ',' { // one at the end is accepted
			return o, false
		}
		s = s[1:]
	}
	return o, !seen["principals"] || o.ca
}

func isFlag(name string) bool {
	positive, negated := strings.CutPrefix(name, "no-")
	negatable, known := flags[positive]
	return known && (!negated || negatable)
}

// set takes one option over. It reports whether the value is valid.
func (o *keyOptions) set(name, value string) bool {
	switch name {
	case "cert-authority":
		o.ca = true
	case "from":
		o.from = true
	case "command":
		o.forced = true
	case "environment":
		return strings.IndexByte(value, '=') > 0
	case "expiry-time":
		t, ok := parseTime(value)
		if o.expiry.IsZero() || t.Before(o.expiry) {
			o.expiry = t
		}
		return ok
	}
	return true
}

// dequote reads a value in quotes, in which only a quote is escaped.
func dequote(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
			b.WriteByte('"')
		case s[i] == '"':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// parseTime reads a time as parse_absolute_time of OpenSSH.
func parseTime(s string) (time.Time, bool) {
	where := time.Local
	if utc, ok := strings.CutSuffix(s, "Z"); ok {
		s, where = utc, time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if t, err := time.ParseInLocation(layout, s, where); err == nil && len(s) == len(layout) {
			return t, true
		}
	}
	return time.Time{}, false
}
