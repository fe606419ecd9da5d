// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	mimemultipart "mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Merge puts what s says into a document of the owner's, named file in errors.
//
// A cloud-config gets it in place, with its own text unchanged around it. Every
// other document that cloud-init knows, and a cloud-config whose lists come from
// anchors, becomes the first part of a MIME multi-part with ours after it, whose
// merge rules add to its lists. A multi-part becomes a part as it stands.
//
// The errors are [Errors].
func (s Spec) Merge(file string, doc []byte) ([]byte, error) {
	in, err := s.insert()
	if err != nil {
		return nil, err
	}
	m := merger{spec: s, in: in}
	out, errs := m.merge(doc)
	if len(errs) > 0 {
		return nil, errs.named(file)
	}
	return out, nil
}

type merger struct {
	spec Spec
	in   insert

	made   map[string]bool // users that their document makes as we would
	users  bool            // a list of users was seen
	looked int             // bytes of documents in the document

	// For [Spec.Review].
	image      *Image
	prefix     string          // path of the document in the document that is looked at
	warnings   Errors          // what may keep a user out
	refused    Errors          // what the image refuses
	listed     map[string]bool // users in the document's lists
	keyed      map[string]bool // of them, those with SSH keys
	hasDefault bool            // the image's own user is made
	ownUser    string          // and has this name; empty if the document does not say
	usersAt    *Error          // where the last list is
	panelOff   *Error          // where the provider's keys are kept off
}

func (m *merger) merge(doc []byte) ([]byte, Errors) {
	k, e := kindOf(doc)
	if e != nil {
		return nil, Errors{e}
	}
	if errs := m.look(k, doc, 0); len(errs) > 0 {
		return nil, errs
	}
	m.dropMade()
	switch k {
	case cloudConfig:
		out, err := m.inPlace(string(doc))
		if err == nil {
			return []byte(out), nil
		}
		return m.beside(part{contentType: "text/cloud-config", name: "cloud-config.txt", body: doc}), nil
	case multipart:
		return m.beside(part{nested: true, body: doc}), nil
	case packed:
		text, e := unpack(doc)
		if e != nil {
			return nil, Errors{e}
		}
		if k, _ := kindOf(text); k == multipart {
			// cloud-init looks for one at the top only.
			return m.beside(part{nested: true, body: text}), nil
		}
		return m.beside(part{contentType: "application/gzip", name: "user-data.gz", body: doc}), nil
	}
	// cloud-init looks at the first line, as it does without MIME.
	return m.beside(part{contentType: "text/plain", name: "user-data", body: doc}), nil
}

// What bounds documents in documents: how deep they are, and how many bytes they
// have together. A part can be packed, and an alias can repeat it.
const (
	maxNesting = 4
	maxLook    = 4 * MaxSize
)

// look finds the cloud-configs in a document and what in them clashes with ours.
// What it cannot read is cloud-init's to judge, unless it is the document itself.
func (m *merger) look(k kind, doc []byte, level int) Errors {
	if level > maxNesting {
		return nil
	}
	switch k {
	case cloudConfig:
		return m.lookAt(doc)
	case packed:
		text, e := unpack(doc)
		if e != nil {
			m.looked += MaxSize // which it may have taken to find out
			return Errors{e}
		}
		if errs, ok := m.mayLook(text); !ok {
			return errs
		}
		k, e := kindOf(text)
		if e != nil {
			return Errors{e}
		}
		if k == packed {
			return Errors{{Rule: ErrHeader, Fix: "it is packed twice: unpack it once"}}
		}
		return m.look(k, text, level+1)
	case archive:
		return m.lookInArchive(doc, level)
	case multipart:
		return m.lookInParts(doc, level)
	case other:
		return m.lookInTemplate(doc)
	}
	return nil
}

// mayLook reports whether a document in the document may be looked at, with the error
// for the first one that may not.
func (m *merger) mayLook(doc []byte) (errs Errors, ok bool) {
	if m.looked > maxLook {
		return nil, false
	}
	if m.looked += len(doc); m.looked > maxLook {
		return Errors{{Rule: ErrTooLarge, Fix: "with all that is packed or repeated in it; no machine needs as much to be told"}}, false
	}
	return nil, true
}

func (m *merger) lookAt(doc []byte) Errors {
	t, e := parse(doc)
	if e != nil {
		return Errors{e}
	}
	if f, _ := t.get("users"); f != nil {
		m.users = true
	}
	errs, made := m.spec.clashes(t)
	errs = append(errs, m.lockouts(t)...)
	errs = append(errs, m.loginFiles(t)...)
	errs = append(errs, m.hidden(t)...)
	errs = append(errs, installer(t)...)
	m.otherWays(t)
	errs.sort()
	if m.made == nil {
		m.made = made
	}
	for name := range made {
		m.made[name] = true
	}
	return errs
}

// lookInArchive reads a list of documents; see cloud-init's
// UserDataProcessor._explode_archive.
func (m *merger) lookInArchive(doc []byte, level int) Errors {
	var top yaml.Node
	if decode(yaml.NewDecoder(bytes.NewReader(doc)), &top) != nil || len(top.Content) == 0 || top.Content[0].Kind != yaml.SequenceNode {
		return Errors{syntaxErrorOr(doc, &Error{Rule: ErrType, Fix: "an archive is a list of documents"})}
	}
	if e := unknownTag(top.Content[0]); e != nil {
		return Errors{e}
	}
	var errs Errors
	for i, n := range top.Content[0].Content {
		if m.looked > maxLook {
			break
		}
		n = resolve(n)
		text, typ := n.Value, ""
		if n.Kind == yaml.MappingNode {
			for key, value := range pairs(n) {
				switch key.Value {
				case "content":
					text = resolve(value).Value
				case "type":
					typ = resolve(value).Value
				}
			}
		}
		errs = append(errs, m.lookInside(fmt.Sprintf("archive[%d]", i), typ, []byte(text), level)...)
	}
	return errs
}

func syntaxErrorOr(doc []byte, e *Error) *Error {
	if decode(yaml.NewDecoder(bytes.NewReader(doc)), new(yaml.Node)) != nil {
		return syntaxError(doc)
	}
	return e
}

// lookInParts reads a MIME message.
func (m *merger) lookInParts(doc []byte, level int) Errors {
	msg, err := mail.ReadMessage(bytes.NewReader(doc))
	if err != nil {
		return nil
	}
	n := 0
	return m.lookInPart(map[string][]string(msg.Header), msg.Body, &n, level)
}

func (m *merger) lookInPart(header map[string][]string, body io.Reader, n *int, level int) Errors {
	get := func(name string) string {
		if v := header[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	typ, params, err := mime.ParseMediaType(get("Content-Type"))
	if err == nil && strings.HasPrefix(typ, "multipart/") && level < maxNesting {
		var errs Errors
		for r := mimemultipart.NewReader(body, params["boundary"]); ; {
			p, err := r.NextRawPart()
			if err != nil {
				return errs
			}
			errs = append(errs, m.lookInPart(map[string][]string(p.Header), p, n, level+1)...)
		}
	}
	*n++
	switch strings.ToLower(get("Content-Transfer-Encoding")) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(io.LimitReader(body, MaxSize))
	if err != nil {
		return nil
	}
	return m.lookInside(fmt.Sprintf("part %d", *n), typ, text, level)
}

// ofForm are the rules of a document's form, which one inside another may break: what
// cloud-init makes of it is their owner's matter, as it was without us.
var ofForm = []error{ErrSyntax, ErrTab, ErrBlank, ErrTemplate, ErrBase64, ErrTag, ErrUnread, ErrGzip, ErrHeader, ErrDocuments}

// lookInside looks at a document in a document, of the type that it is said to
// be of. Lines and columns count in the inner one, which the path names.
func (m *merger) lookInside(path, typ string, text []byte, level int) Errors {
	if errs, ok := m.mayLook(text); !ok {
		for _, e := range errs {
			e.Path = path
		}
		return errs
	}
	k, e := kindOf(text)
	if e != nil && typ == "text/cloud-config" {
		k, e = cloudConfig, nil // it needs no first line then
	}
	if e != nil {
		return nil
	}
	prefix := m.prefix
	m.prefix += path + ": "
	errs := m.look(k, text, level+1)
	m.prefix = prefix
	var kept Errors
	for _, e := range errs {
		if slices.ContainsFunc(ofForm, func(rule error) bool { return errors.Is(e.Rule, rule) }) {
			continue
		}
		e.Path = strings.TrimSuffix(path+": "+e.Path, ": ")
		kept = append(kept, e)
	}
	return kept
}

// dropMade leaves out the users that their document makes as ours would.
func (m *merger) dropMade() {
	var items []item
	for _, it := range m.in.users.items {
		if !m.made[it.pairs[0].value] {
			items = append(items, it)
		}
	}
	m.in.users.items = items
}

// inPlace puts everything into the text of a cloud-config.
func (m *merger) inPlace(doc string) (string, error) {
	var err error
	for _, e := range []entry{m.in.merging, m.in.root, m.in.users, m.in.files} {
		// Without a list of users the image's own user is made: a list of ours must
		// not change that.
		if doc, err = splice(doc, e, true); err != nil {
			return "", err
		}
	}
	return doc, nil
}

// beside makes a multi-part of their document and ours. Ours comes last: the
// rules of a later part say how it is merged into the earlier ones.
func (m *merger) beside(theirs part) []byte {
	var b strings.Builder
	b.WriteString(Header + "\n" + m.in.about + "\n")
	if m.spec.Vendor {
		b.WriteString(m.in.merging.block("", true))
	} else {
		b.WriteString("# What is in here comes after what the other parts say, and takes none of it\n# away.\n")
		b.WriteString("merge_how: " + mergeRules + "\n")
	}
	if m.in.root.any() {
		b.WriteString("\n" + m.in.root.block("", true))
	}
	if m.in.users.any() {
		b.WriteString("\n" + m.in.users.block("", !m.users))
	}
	b.WriteString("\n" + m.in.files.block("", true))
	return join(theirs, part{contentType: "text/cloud-config", name: "totp.cfg", body: []byte(b.String())})
}
