// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Header is the first line by which cloud-init knows a cloud-config.
const Header = "#cloud-config"

// Document returns the whole document, with comments. The errors are [Errors].
func (s Spec) Document() ([]byte, error) {
	in, err := s.insert()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(Header + "\n" + in.about)
	if s.Vendor {
		b.WriteString("\n" + in.merging.block("", true))
	}
	if in.root.any() {
		b.WriteString("\n" + in.root.block("", true))
	}
	if in.users.any() {
		b.WriteString("\n" + in.users.block("", s.keepDefault()))
	}
	b.WriteString("\n" + in.files.block("", true))
	return b.Bytes(), nil
}

// insert is what a document has of ours.
type insert struct {
	about   string // comment lines
	merging entry  // how a customer's lists and ours come together; vendor-data only
	root    entry  // what lets root use its keys; empty unless root is enrolled
	users   entry
	files   entry
}

// An entry is a key with items that come to a list of the owner's, if there is
// one.
type entry struct {
	key   string
	about []string // comment lines, without "# ", of scalars
	items []item
	keep  *item // what comes first where the owner has no such list

	// scalars replace items: top-level keys with one plain value each, of which key is
	// the last.
	scalars []pair
}

// An item of a list: a mapping, or a single value.
type item struct {
	value string
	pairs []pair
	about []string
}

type pair struct {
	key    string
	value  string
	quoted bool     // a string that would be taken for something else
	text   bool     // of several lines
	list   []string // in place of a value
	bare   bool     // not a string: false
}

func (e entry) any() bool { return len(e.items) > 0 || len(e.scalars) > 0 }

func (s Spec) insert() (insert, error) {
	layer, err := s.Layer()
	if err != nil {
		return insert{}, err
	}
	in := insert{about: s.about(), root: s.rootKeys(), users: s.users(), files: s.files(string(layer))}
	if s.Vendor {
		in.merging = merging()
	}
	return in, nil
}

func (s Spec) about() string {
	lines := []string{"For an instance of an image that demands an SSH key and a one-time code.", "Made by packer-plugin-totp. "}
	credentials := slices.ContainsFunc(s.Channels, func(c Channel) bool { return c.URL != "" || len(c.Headers) > 0 })
	switch {
	case s.Token == "" && !credentials:
		lines[1] += "Nothing in here is secret."
	case !credentials:
		lines[1] += "The token in here tells the owner that a card is from"
		lines = append(lines, "this instance: keep it to yourself until the card is there. Nothing else is", "secret.")
	default:
		lines[1] += "What is written at the channels, and the token if"
		lines = append(lines, "there is one, are for this instance alone: keep them to yourself until the card", "is there.")
	}
	return "# " + strings.Join(lines, "\n# ") + "\n"
}

// rootKeys switches off what cloud-init does to root's keys by default: under
// disable_root, a key that the provider gives gets a forced command, also where the
// document names the same key, and root could never log in.
func (s Spec) rootKeys() entry {
	if !slices.ContainsFunc(s.Users, func(u User) bool { return u.Name == "root" }) {
		return entry{}
	}
	return entry{key: disableRoot, scalars: []pair{{key: disableRoot, value: "false"}}, about: []string{
		"Root is enrolled and logs in with key and code. Without this line cloud-init",
		"replaces root's keys by ones that only print a message.",
	}}
}

// users are the accounts to make.
func (s Spec) users() entry {
	e := entry{key: "users"}
	for _, u := range s.Users {
		if len(u.SSHKeys) == 0 {
			continue
		}
		it := item{pairs: []pair{{key: "name", value: u.Name}}}
		if u.Name == "root" {
			// It is there, and its password is for the console.
			it.pairs = append(it.pairs, pair{key: "lock_passwd", value: "false", bare: true})
		} else {
			shell := u.Shell
			if shell == "" {
				shell = "/bin/bash"
			}
			it.pairs = append(it.pairs, pair{key: "shell", value: shell})
			if u.Sudo {
				it.pairs = append(it.pairs, pair{key: "sudo", value: "ALL=(ALL) NOPASSWD:ALL"})
			}
		}
		it.pairs = append(it.pairs, pair{key: "ssh_authorized_keys", list: u.SSHKeys})
		e.items = append(e.items, it)
	}
	// A list of users takes the place of the image's own, which is its default
	// user.
	e.keep = &item{value: "default", about: []string{"the image's own user, who would be left out otherwise"}}
	return e
}

// keepDefault reports whether a document of ours alone leaves the image's own
// user in place: somebody is enrolled whose account is not made here, and it may
// be that one.
func (s Spec) keepDefault() bool {
	for _, u := range s.Users {
		if len(u.SSHKeys) == 0 {
			return true
		}
	}
	return false
}

func (s Spec) files(layer string) entry {
	about := []string{
		"Who is enrolled on this instance, and to whom the cards are sealed. The",
		"directory belongs to this instance: another one made from its disk does not",
		"inherit it.",
	}
	if s.Vendor {
		about = []string{
			"The provider's layer for this instance. The directory belongs to it: another",
			"one made from its disk does not inherit it.",
		}
	}
	return entry{key: "write_files", items: []item{{about: about, pairs: []pair{
		{key: "path", value: s.File()},
		{key: "permissions", value: "0600", quoted: true},
		{key: "content", value: layer, text: true},
	}}}}
}

// mergeRules let lists of ours come after those that are there.
const mergeRules = "list(append)+dict(recurse_list)+str()"

// merging is for vendor-data. cloud-init takes the first of merge_how and
// merge_type away when it puts parts together, and the other when it lays the
// customer's user-data over the result. Without the second, a list of the
// customer's takes the place of ours.
func merging() entry {
	return entry{key: "merge_type", scalars: []pair{{key: "merge_how", value: mergeRules}, {key: "merge_type", value: mergeRules}}, about: []string{
		"A customer's own write_files and users come beside these, and not in their",
		"place. (Both keys are needed: merge_how counts among the parts of vendor-data,",
		"merge_type between vendor-data and user-data.)",
	}}
}

// block renders an entry as a block of YAML, all lines indented by margin.
func (e entry) block(margin string, keep bool) string {
	var b strings.Builder
	if len(e.scalars) > 0 {
		comments(&b, margin, e.about)
		for _, p := range e.scalars {
			b.WriteString(margin + p.key + ": " + p.value + "\n")
		}
		return b.String()
	}
	b.WriteString(margin + e.key + ":\n")
	b.WriteString(e.list(margin+"  ", keep))
	return b.String()
}

// list renders the items, all lines indented by margin.
func (e entry) list(margin string, keep bool) string {
	var b strings.Builder
	items := e.items
	if keep && e.keep != nil {
		items = append([]item{*e.keep}, items...)
	}
	for _, it := range items {
		it.block(&b, margin)
	}
	return b.String()
}

func (it item) block(b *strings.Builder, margin string) {
	comments(b, margin, it.about)
	if it.value != "" {
		b.WriteString(margin + "- " + it.value + "\n")
		return
	}
	lead := margin + "- "
	for _, p := range it.pairs {
		b.WriteString(lead + p.key + ":")
		lead = margin + "  "
		switch {
		case p.list != nil:
			b.WriteByte('\n')
			for _, v := range p.list {
				b.WriteString(lead + "  - " + scalar(v) + "\n")
			}
		case p.text:
			b.WriteString(" |\n")
			for line := range strings.Lines(p.value) {
				b.WriteString(lead + "  " + line)
			}
		case p.quoted:
			b.WriteString(" " + strconv.Quote(p.value) + "\n")
		case p.bare:
			b.WriteString(" " + p.value + "\n")
		default:
			b.WriteString(" " + scalar(p.value) + "\n")
		}
	}
}

func comments(b *strings.Builder, margin string, lines []string) {
	for _, line := range lines {
		b.WriteString(margin + "# " + line + "\n")
	}
}

// flow renders the items in JSON, which is YAML's flow style, without the
// brackets around them.
func (e entry) flow(keep bool) string {
	items := e.items
	if keep && e.keep != nil {
		items = append([]item{*e.keep}, items...)
	}
	texts := make([]string, len(items))
	for i, it := range items {
		texts[i] = it.flow()
	}
	return strings.Join(texts, ", ")
}

func (it item) flow() string {
	if it.value != "" {
		return quoteJSON(it.value)
	}
	texts := make([]string, len(it.pairs))
	for i, p := range it.pairs {
		value := quoteJSON(p.value)
		switch {
		case p.list != nil:
			keys := make([]string, len(p.list))
			for j, v := range p.list {
				keys[j] = quoteJSON(v)
			}
			value = "[" + strings.Join(keys, ", ") + "]"
		case p.bare:
			value = p.value
		}
		texts[i] = quoteJSON(p.key) + ": " + value
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

func quoteJSON(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return strconv.Quote(s) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// scalar writes a value plainly where every reader of YAML takes it for the
// same text, and in double quotes elsewhere.
func scalar(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 /+=@._-,()"
	first := strings.Trim(s[:min(1, len(s))], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/") == ""
	// "NOPASSWD:ALL" has its colon before a letter, where it is none of YAML's.
	colons := strings.ReplaceAll(s, ":ALL", "")
	if s != "" && first && strings.Trim(colons, plain) == "" && len(s) > 1 && !strings.HasSuffix(s, " ") && !word(s) {
		return s
	}
	return quoteJSON(s)
}

// word tells the words of YAML 1.1 that are no text.
func word(s string) bool {
	switch strings.ToLower(s) {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		return true
	}
	return false
}
