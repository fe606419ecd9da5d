// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"maps"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// The characters of names. Few enough to be looked for one by one, which spares
// the start of every program the compiling of regular expressions.
const (
	lower = "abcdefghijklmnopqrstuvwxyz"
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digit = "0123456789"

	portChars   = upper + lower + digit + "._-"
	headerChars = upper + lower + digit + "!#$%&'*+-.^_`|~" // RFC 9110, 5.6.2
)

// made reports whether s consists of chars, from one of them to most.
func made(s, chars string, most int) bool {
	return s != "" && len(s) <= most && strings.Trim(s, chars) == ""
}

// printable reports whether s consists of ASCII from first to "~".
func printable(s string, first rune, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < first || r > '~' })
}

func itoa(n int) string { return strconv.Itoa(n) }

func (v *validator) channels(channels []Channel) {
	if channels != nil && len(channels) == 0 {
		v.fail("channels", "", ErrEmptyValue, "name a channel, or leave the key out for all built-in ones")
	}
	seen := map[string]bool{}
	for i, c := range channels {
		v.channel(at("channels", i), c)
		if id := c.id(); seen[id] {
			v.fail(at("channels", i), c.withDefaults().String(), ErrDuplicate, "leave out one of them")
		} else if c.Type != "" {
			seen[id] = true
		}
	}
}

// id is what no two channels of a policy have in common.
func (c Channel) id() string {
	c = c.withDefaults()
	return c.Type + " " + c.Port + " " + c.URL
}

func (c Channel) equal(other Channel) bool {
	a, b := c.withDefaults(), other.withDefaults()
	same := maps.Equal(a.Headers, b.Headers)
	a.Headers, b.Headers = nil, nil
	return same && reflect.DeepEqual(a, b)
}

func (v *validator) channel(path string, c Channel) {
	typed := join(path, "type")
	switch c.Type {
	case "":
		v.fail(typed, "", ErrRequired, wordFix("", ChannelTypes()))
	case ChannelVirtio:
		if c.Port != "" && (!made(c.Port, portChars, 64) || c.Port[0] == '.') {
			v.fail(join(path, "port"), show(c.Port), ErrPort, `use 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-", and no "." first`)
		}
		v.notOfType(path, c, "port")
	case ChannelConsole, ChannelFile:
		v.notOfType(path, c)
	case ChannelHTTP:
		v.http(path, c)
		v.notOfType(path, c, "url", "method", "headers", "ca_file")
		v.fail(typed, c.Type, ErrUnsupported, wordFix("", ChannelTypes()))
	default:
		v.fail(typed, show(c.Type), ErrWord, wordFix(c.Type, ChannelTypes()))
	}
	if v.layer == Image {
		v.noCredentials(path, c)
	}
}

// notOfType refuses the fields that are given and not in fields.
func (v *validator) notOfType(path string, c Channel, fields ...string) {
	for _, f := range []struct {
		key   string
		given bool
	}{
		{"port", c.Port != ""},
		{"url", c.URL != ""},
		{"method", c.Method != ""},
		{"headers", len(c.Headers) > 0},
		{"ca_file", c.CAFile != ""},
	} {
		if f.given && !slices.Contains(fields, f.key) {
			v.fail(join(path, f.key), "", ErrNotOfType, "leave it out, or write another type than "+c.Type)
		}
	}
}

func (v *validator) http(path string, c Channel) {
	v.url(join(path, "url"), c.URL)
	v.word(join(path, "method"), c.Method, "PUT", "POST")
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if !made(name, headerChars, 128) || !printable(c.Headers[name], ' ', 4096) {
			v.fail(join(path, "headers"), "", ErrHeader, "use a name such as X-Token and a value of printable ASCII characters")
		}
	}
	if c.CAFile != "" && !cleanGuestPath(c.CAFile) {
		v.fail(join(path, "ca_file"), show(c.CAFile), ErrCAFile, `use a path on the instance, such as "/etc/ssl/certs/panel.pem"`)
	}
}

func cleanGuestPath(s string) bool {
	return path.IsAbs(s) && path.Clean(s) == s && printable(s, '!', 255)
}

func (v *validator) url(path, s string) {
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
	if !strings.Contains(u.Path, "{id}") {
		v.fail(path, showURL(s), ErrNoID, `put {id} into the path, as in "https://panel.example/enroll/{id}"`)
	}
}

// noCredentials refuses the places where a channel can carry credentials,
// whatever its type.
func (v *validator) noCredentials(path string, c Channel) {
	const fix = "put the channel into vendor-data or user-data, since everybody who starts the image could read it"
	if len(c.Headers) > 0 {
		v.fail(join(path, "headers"), "", ErrCredentialInImage, fix)
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return // reported as such
	}
	if u.User != nil {
		v.fail(join(path, "url"), showURL(c.URL), ErrCredentialInImage, "leave out what is ahead of the @, or "+fix)
	}
	if u.RawQuery != "" || u.ForceQuery {
		v.fail(join(path, "url"), showURL(c.URL), ErrCredentialInImage, "leave out the query (?…), or "+fix)
	}
}

func cloneChannels(channels []Channel) []Channel {
	c := slices.Clone(channels)
	for i := range c {
		c[i].Headers = maps.Clone(c[i].Headers)
	}
	return c
}
