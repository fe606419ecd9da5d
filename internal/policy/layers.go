// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import "slices"

// An action is what a later layer may do about a key.
type action int

const (
	no             action = iota // may not set it
	own                          // has its own, which says nothing about the layers below
	replace                      // its value holds
	replaceIfNamed               // its value holds, if the image's recipients_from names the layer
	add                          // its value comes to those below
	tighten                      // its value holds, if it is at least as strict as the one below
)

// layerRules is what the vendor's and the instance's layer may do, key by key.
var layerRules = []struct {
	key              string
	vendor, instance action
}{
	{"version", own, own},
	{"issuer", replace, replace},
	{"enroll", add, add},
	{"users", add, add},
	{"users[].name", add, add},
	{"users[].recipients", replaceIfNamed, replaceIfNamed},
	{"escrow_recipients", no, add},
	{"recipients_from", no, no},
	{"backup_codes", replace, replace},
	{"rate_limit", tighten, tighten},
	{"require", tighten, tighten},
	{"channels", add, add},
	{"jitter", replace, replace},
	{"keep", replace, replace},
	{"sshd", no, no},
	{"time_sync", no, no},
	{"firewall", no, no},
	{"packages", no, no},
	{"cloud_init_module", no, no},
	{"cloud_init_module_listed", no, no},
	{"clean", no, no},
	{"token", no, replace},
}

func actionOf(key string, layer Layer) action {
	for _, r := range layerRules {
		if r.key == key {
			switch layer {
			case Vendor:
				return r.vendor
			case Instance:
				return r.instance
			}
		}
	}
	return no
}

// given lists the keys that p says something about.
func (p *Policy) given() []string {
	var keys []string
	for _, k := range []struct {
		key   string
		given bool
	}{
		{"version", p.Version != 0},
		{"issuer", p.Issuer != ""},
		{"enroll", p.Enroll != ""},
		{"users", len(p.Users) > 0},
		{"escrow_recipients", len(p.EscrowRecipients) > 0},
		{"recipients_from", p.RecipientsFrom != nil},
		{"backup_codes", p.BackupCodes != 0},
		{"rate_limit", p.RateLimit != ""},
		{"require", p.Require != ""},
		{"channels", len(p.Channels) > 0},
		{"jitter", p.Jitter != ""},
		{"keep", p.Keep != ""},
		{"sshd", p.SSHD.given()},
		{"time_sync", p.TimeSync != ""},
		{"firewall", p.Firewall != ""},
		{"packages", p.Packages != ""},
		{"cloud_init_module", p.CloudInitModule},
		{"cloud_init_module_listed", p.CloudInitModuleListed},
		{"clean", p.Clean != Clean{}},
		{"token", p.Token != ""},
	} {
		if k.given {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// notInLayer returns an error for each key that the layer may not set.
func notInLayer(layer Layer, p *Policy) Errors {
	var errs Errors
	for _, key := range p.given() {
		if actionOf(key, layer) == no {
			errs = append(errs, &Error{Path: key, Rule: ErrNotInLayer, Fix: notInLayerFix(key)})
		}
	}
	return errs
}

func notInLayerFix(key string) string {
	for _, r := range layerRules {
		if r.key == key && r.instance != no {
			return "set it in the instance's user-data"
		}
	}
	return "set it when the image is built"
}

// A merger lays one layer over what holds below it.
type merger struct {
	layer Layer
	to    *Effective // a copy of what holds below
	errs  Errors
}

func (m *merger) fail(path, value string, rule error, fix string) {
	m.errs = append(m.errs, &Error{Path: path, Value: value, Rule: rule, Fix: fix})
}

func (m *merger) policy(p *Policy) {
	m.errs = notInLayer(m.layer, p)
	to := &m.to.Policy
	m.text("issuer", &to.Issuer, p.Issuer)
	m.text("enroll", &to.Enroll, p.Enroll, EnrollListed, EnrollAuto)
	if p.BackupCodes != 0 {
		to.BackupCodes = p.BackupCodes
	}
	m.text("rate_limit", &to.RateLimit, p.RateLimit, RateStandard, RateStrict)
	m.text("require", &to.Require, p.Require, RequireAny, RequireAll)
	m.text("jitter", &to.Jitter, p.Jitter)
	m.text("keep", &to.Keep, p.Keep)
	m.text("token", &to.Token, p.Token)
	for i, u := range p.Users {
		m.user(at("users", i), u)
	}
	to.EscrowRecipients = m.union(to.EscrowRecipients, p.EscrowRecipients)
	for i, c := range p.Channels {
		m.channel(at("channels", i), c)
	}
}

// text merges a key with a single value. Where order matters to the action,
// words are its values, from the one that says least.
func (m *merger) text(key string, to *string, value string, words ...string) {
	if value == "" {
		return
	}
	less := slices.Index(words, value) < slices.Index(words, *to)
	switch a := actionOf(key, m.layer); {
	case a == replace, !less && words != nil && (a == add || a == tighten):
		*to = value
	case a == tighten:
		m.fail(key, value, ErrLoosens, "leave it out: "+*to+" holds from the layers below")
	case a == add:
		m.fail(key, value, ErrTakesAway, "leave it out: "+*to+" holds from the layers below")
	}
}

func (m *merger) user(path string, u User) {
	to := &m.to.Policy
	i := slices.IndexFunc(to.Users, func(b User) bool { return b.Name == u.Name })
	if i < 0 {
		i = len(to.Users)
		to.Users = append(to.Users, User{Name: u.Name})
	}
	if len(u.Recipients) == 0 {
		return
	}
	path = join(path, "recipients")
	if actionOf("users[].recipients", m.layer) != replaceIfNamed || !slices.Contains(to.RecipientsFrom, string(m.layer)) {
		m.fail(path, "", ErrRecipientsFrom, "leave them out, or build the image with "+string(m.layer)+" among its recipients_from")
		return
	}
	to.Users[i].Recipients = slices.Clone(u.Recipients)
	m.to.origin[u.Name] = m.layer
}

// union adds the recipients that are not there yet. A second spelling of one,
// with another comment, is the same recipient.
func (m *merger) union(to, from []string) []string {
	for _, s := range from {
		if !slices.ContainsFunc(to, func(t string) bool { return sameRecipient(s, t) }) {
			to = append(to, s)
		}
	}
	return to
}

func sameRecipient(a, b string) bool {
	if a == b {
		return true
	}
	r, err := parseRecipient(a)
	if err != nil {
		return false
	}
	t, err := parseRecipient(b)
	return err == nil && r.Hash() == t.Hash()
}

func (m *merger) channel(path string, c Channel) {
	to := &m.to.Policy
	for _, b := range to.Channels {
		if b.id() != c.id() {
			continue
		}
		if !b.Equal(c) {
			m.fail(path, c.withDefaults().String(), ErrDuplicate, "a layer below has this channel with other fields; a layer adds channels and changes none")
		}
		return
	}
	to.Channels = append(to.Channels, cloneChannels([]Channel{c.withDefaults()})...)
}
