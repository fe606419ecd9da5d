// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"maps"
	"net/url"
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
	wordChars   = lower + "_"
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
	return c.Type + " " + c.Port + c.Device + " " + c.URL
}

// Equal reports whether two channels say the same.
func (c Channel) Equal(other Channel) bool {
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
	case ChannelConsole:
		if c.Device != "" && !validSerial(c.Device) {
			v.fail(join(path, "device"), show(c.Device), ErrDevice, `use a serial port, such as "/dev/ttyS1" or "/dev/hvc0", or leave it out for the system console`)
		}
		v.notOfType(path, c, "device")
	case ChannelFile:
		v.notOfType(path, c)
	case ChannelSSHBanner:
		v.word(join(path, "recipients"), c.Recipients, BannerPostQuantum, BannerAny)
		v.notOfType(path, c, "recipients")
	case ChannelOpenStack:
		v.onlyUser(path, c)
		v.notOfType(path, c, "user")
	case ChannelHTTP:
		v.http(path, c)
		v.notOfType(path, c, httpFields...)
	default:
		v.fail(typed, show(c.Type), ErrWord, wordFix(c.Type, ChannelTypes()))
	}
	if v.layer == Image {
		v.noCredentials(path, c)
	}
}

// validSerial accepts the names that kernels give to serial ports: ttyS1, ttyAMA1 of
// Arm's, hvc0 of virtio and Xen. A terminal that people sit at has a number alone.
func validSerial(s string) bool {
	for _, kind := range []string{"/dev/tty", "/dev/hvc"} {
		if rest, ok := strings.CutPrefix(s, kind); ok {
			return made(rest, upper+lower+digit, 16) && strings.Trim(rest[len(rest)-1:], digit) == "" && (kind == "/dev/hvc" || strings.Trim(rest, digit) != "")
		}
	}
	return false
}

// onlyUser looks at the name of the one whose envelopes go this way.
func (v *validator) onlyUser(path string, c Channel) {
	if c.User != "" && ValidUserName(c.User) != nil {
		v.fail(join(path, "user"), show(c.User), ErrUserName, userNameFix)
	}
}

// notOfType refuses the fields that are given and not in fields.
func (v *validator) notOfType(path string, c Channel, fields ...string) {
	for _, f := range []struct {
		key   string
		given bool
	}{
		{"port", c.Port != ""},
		{"device", c.Device != ""},
		{"url", c.URL != ""},
		{"method", c.Method != ""},
		{"headers", len(c.Headers) > 0},
		{"body", c.Body != ""},
		{"template", c.Template != ""},
		{"success", c.Success != nil},
		{"ca_file", c.CAFile != ""},
		{"client_cert", c.ClientCert != ""},
		{"client_key", c.ClientKey != ""},
		{"hmac_key", c.HMACKey != ""},
		{"envelopes", c.Envelopes != ""},
		{"user", c.User != ""},
		{"recipients", c.Recipients != ""},
	} {
		if f.given && !slices.Contains(fields, f.key) {
			v.fail(join(path, f.key), "", ErrNotOfType, "leave it out, or write another type than "+c.Type)
		}
	}
}

// noCredentials refuses the places where a channel can carry credentials,
// whatever its type.
func (v *validator) noCredentials(path string, c Channel) {
	const fix = "put the channel into vendor-data or user-data, since everybody who starts the image could read it"
	for _, f := range []struct {
		key   string
		given bool
	}{
		{"headers", len(c.Headers) > 0},
		{"template", c.Template != ""},
		{"client_cert", c.ClientCert != ""},
		{"client_key", c.ClientKey != ""},
		{"hmac_key", c.HMACKey != ""},
	} {
		if f.given {
			v.fail(join(path, f.key), "", ErrCredentialInImage, fix)
		}
	}
	if c.Type == ChannelHTTP && c.TakesOne() {
		v.fail(join(path, "envelopes"), c.Envelopes, ErrOneInImage, "put the channel into the instance's user-data")
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
		c[i].Success = slices.Clone(c[i].Success)
	}
	return c
}
