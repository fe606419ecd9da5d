// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"encoding/json"
	"maps"
	"net/textproto"
	"net/url"
	"path"
	"slices"
	"strings"
)

var httpFields = []string{"url", "method", "headers", "body", "template", "success", "ca_file", "client_cert", "client_key", "hmac_key", "envelopes", "user"}

// Placeholders are what an http channel fills into its URL, its headers and its
// JSON text, in braces: as in {id}.
func Placeholders() []string { return []string{"instance_id", "user", "id", "hostname"} }

// EnvelopePlaceholders are what it fills into its JSON text besides: the
// envelope as armored text and as base64 on one line.
func EnvelopePlaceholders() []string { return []string{"armored", "base64"} }

// ownHeaders are made by the channel, or by the connection.
var ownHeaders = []string{"Connection", "Content-Length", "Host", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Signature", "X-Totp-Signature"}

func (v *validator) http(path string, c Channel) {
	v.url(join(path, "url"), c)
	v.word(join(path, "method"), c.Method, "PUT", "POST")
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		value := c.Headers[name]
		switch key := join(path, "headers"); {
		case !made(name, headerChars, 128) || !printable(value, ' ', 4096):
			v.fail(key, "", ErrHeader, "use a name such as X-Token and a value of printable ASCII characters")
		case slices.Contains(ownHeaders, textproto.CanonicalMIMEHeaderKey(name)):
			v.fail(key, name, ErrHeader, "leave it out: the channel sets it itself")
		default:
			v.placeholders(key, value)
		}
	}
	v.word(join(path, "body"), c.Body, BodyRaw, BodyArmored, BodyJSON)
	v.template(join(path, "template"), c)
	v.success(join(path, "success"), c.Success)
	for _, f := range []struct{ key, value string }{{"ca_file", c.CAFile}, {"client_cert", c.ClientCert}, {"client_key", c.ClientKey}} {
		if f.value != "" && !cleanGuestPath(f.value) {
			v.fail(join(path, f.key), show(f.value), ErrGuestPath, `use a path on the instance, such as "/etc/ssl/certs/panel.pem"`)
		}
	}
	if c.ClientCert != "" && c.ClientKey == "" {
		v.fail(join(path, "client_cert"), "", ErrKeyPair, "write client_key as well, the path of the certificate's key")
	}
	if c.ClientKey != "" && c.ClientCert == "" {
		v.fail(join(path, "client_key"), "", ErrKeyPair, "write client_cert as well, the path of the key's certificate")
	}
	if c.HMACKey != "" && (len(c.HMACKey) < 16 || !printable(c.HMACKey, '!', 256)) {
		v.fail(join(path, "hmac_key"), "", ErrHMACKey, "use 16 to 256 printable ASCII characters without blanks, from a random source")
	}
	v.word(join(path, "envelopes"), c.Envelopes, EnvelopesAll, EnvelopesOne)
	v.onlyUser(path, c)
	if c.TakesOne() && c.User == "" {
		v.fail(join(path, "user"), "", ErrRequired, "say whose envelope it is that goes here")
	}
}

func cleanGuestPath(s string) bool {
	return path.IsAbs(s) && path.Clean(s) == s && printable(s, '!', 255)
}

func (v *validator) url(path string, c Channel) {
	s := c.URL
	if s == "" {
		v.fail(path, "", ErrRequired, `write a URL such as "https://panel.example/enroll/{id}"`)
		return
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || !printable(s, '!', 2048):
		v.fail(path, showURL(s), ErrURL, `write it as in "https://panel.example/enroll/{id}"`)
		return
	case u.Scheme != "https":
		v.fail(path, showURL(s), ErrURL, "use https://")
	case strings.Contains(s, "#"):
		v.fail(path, showURL(s), ErrURL, `leave "#" and what follows it out`)
	}
	if !c.TakesOne() && !strings.Contains(u.Path, "{id}") && !c.postsID() {
		v.fail(path, showURL(s), ErrNoID, `put {id} into the path, as in "https://panel.example/enroll/{id}", or write "envelopes: one" if the URL is good for a single envelope`)
	}
	rest := s
	for _, name := range Placeholders() {
		rest = strings.ReplaceAll(rest, "{"+name+"}", "")
	}
	if strings.ContainsAny(rest, "{}") {
		v.fail(path, showURL(s), ErrPlaceholder, placeholderFix(Placeholders()))
	}
}

// postsID reports whether the body names the envelope, and the server is not asked
// to store it under the URL: a webhook's way.
func (c Channel) postsID() bool {
	return c.Method == "POST" && c.Body == BodyJSON && (c.Template == "" || strings.Contains(c.Template, "{id}"))
}

// placeholders refuses what looks like a placeholder and is none. The names of
// those that are no secrets, since they are words.
func (v *validator) placeholders(path, s string, more ...string) {
	known := append(Placeholders(), more...)
	for _, part := range strings.Split(s, "{")[1:] {
		name, _, closed := strings.Cut(part, "}")
		if closed && made(name, wordChars, 32) && !slices.Contains(known, name) {
			v.fail(path, "", ErrPlaceholder, placeholderFix(known))
			return
		}
	}
}

func placeholderFix(known []string) string {
	return "use {" + strings.Join(known, "}, {") + "}"
}

// template accepts what is JSON once it is filled. A place outside of a string
// would be one that a value can break out of.
func (v *validator) template(path string, c Channel) {
	switch {
	case c.Template == "":
		return
	case c.Body != BodyJSON:
		v.fail(path, "", ErrNotOfType, `leave it out, or write "body: json"`)
		return
	}
	v.placeholders(path, c.Template, EnvelopePlaceholders()...)
	filled := c.Template
	for _, name := range append(Placeholders(), EnvelopePlaceholders()...) {
		filled = strings.ReplaceAll(filled, "{"+name+"}", "x")
	}
	has := func(name string) bool { return strings.Contains(c.Template, "{"+name+"}") }
	if len(c.Template) > 4096 || !json.Valid([]byte(filled)) || !slices.ContainsFunc(EnvelopePlaceholders(), has) {
		v.fail(path, "", ErrTemplate, `write it as in "{\"card\": \"{armored}\"}", with {armored} or {base64} in a string`)
	}
}

func (v *validator) success(path string, codes []int) {
	if codes != nil && len(codes) == 0 {
		v.fail(path, "", ErrEmptyValue, "name a code, or leave the key out for all from 200 to 299")
	}
	for i, code := range codes {
		switch {
		case code < 200 || code > 299:
			v.fail(at(path, i), itoa(code), ErrStatus, "use codes from 200 to 299")
		case slices.Contains(codes[:i], code):
			v.fail(at(path, i), itoa(code), ErrDuplicate, "leave out one of them")
		}
	}
}
