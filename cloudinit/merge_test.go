// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	mimemultipart "mime/multipart"
	"net/mail"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

var ours = Spec{Token: token, Users: []User{{Name: "alice", Recipients: []string{aliceAge}, SSHKeys: []string{aliceSSH}}}}

// inPlace are cloud-configs that are merged into in place; each is a golden.
var inPlace = map[string]string{
	"plain": `#cloud-config
# My server.

# packages that are needed
packages:
    - git   # and its friends
    - "vim"

users:
  - default
  - name: bob
    ssh_authorized_keys: ['` + bobSSH + `']
    # bob is the last

# files
write_files:
- content: |
    # a comment of a script, not of YAML

    echo "hello"
  path: /usr/local/bin/hello

# and now run it
runcmd:
  - [hello]
`,
	"empty":           "#cloud-config\n",
	"no-newline":      "#cloud-config\npackages: [git]",
	"literal-at-end":  "#cloud-config\nbootcmd:\n  - |\n    echo a",
	"keep-at-end":     "#cloud-config\nbootcmd:\n  - |+\n    echo a\n\n\n",
	"document-marks":  "#cloud-config\n---\nhostname: web\n...\n",
	"indented":        "#cloud-config\n  hostname: web\n  users:\n    - default\n",
	"json":            "#cloud-config\n{\"hostname\": \"web\", \"users\": [{\"name\": \"bob\"}], \"write_files\": []}\n",
	"json-pretty":     "#cloud-config\n{\n  \"runcmd\": [\"echo ']' # }\", 'it''s [']\n}\n",
	"flow-list":       "#cloud-config\nusers: [default, {name: bob, gecos: it's bob},] # all\nhostname: web\n",
	"crlf":            "#cloud-config\r\nusers:\r\n  - default\r\n\r\nhostname: web\r\n",
	"tabs-inside":     "#cloud-config\nwrite_files:\n  - path: /root/Makefile\n    content: |\n      all:\n      \ttrue\nhostname: web\n",
	"wide-characters": "#cloud-config\nhostname: web # Grüße, 世界\nusers: [ö, 世界, default]\n",
	"dash-alone":      "#cloud-config\nusers:\n  -\n    name: bob\n  # - carol\nhostname: web\n",
	"same-user":       "#cloud-config\nusers:\n  - name: alice\n    ssh-authorized-keys:\n      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl another comment\n",
	"other-duplicate": "#cloud-config\nhostname: a\nhostname: b\n",
	"anchors":         "#cloud-config\nx-keys: &keys [k1]\nusers:\n  - name: bob\n    ssh_authorized_keys: *keys\n",
	"upper-case":      "\n#Cloud-Config\nhostname: web\n",
	"tags":            "#cloud-config\nhostname: !!str 1\na: ! x\nb: !!pairs [c: 1]\nd: !!omap [e: 1]\nusers: !!seq\n  - !!map {name: bob}\n",
	"password-off":    "#cloud-config\nssh_pwauth: false\n",
	"modules":         "#cloud-config\ncloud_init_modules: [migrator, write-files, [users_groups, always]]\n",
}

func TestMergeInPlace(t *testing.T) {
	for name, doc := range inPlace {
		t.Run(name, func(t *testing.T) {
			out, err := ours.Merge(name, []byte(doc))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "merge-"+name, out)
			if !inserted(doc, string(out)) {
				t.Error("bytes of the document are lost or moved")
			}
			checkMerged(t, doc, string(out))
			checkDocument(t, Spec{Token: token, Users: []User{{Name: "alice", Recipients: []string{aliceAge}}}}, out)
		})
	}
}

// inserted reports whether out is doc with text put in.
func inserted(doc, out string) bool {
	for i := 0; i < len(out) && doc != ""; i++ {
		if out[i] == doc[0] {
			doc = doc[1:]
		}
	}
	return doc == ""
}

// checkMerged wants all that a document said to be said still, and its lists to
// begin as they did.
func checkMerged(t *testing.T, doc, out string) {
	t.Helper()
	before, after := topLevel(t, doc), topLevel(t, out)
	for key, was := range before {
		now, ok := after[key]
		if !ok {
			t.Errorf("%s is gone", key)
			continue
		}
		if list, ok := was.([]any); ok && (key == "users" || key == "write_files") {
			if got := now.([]any); len(got) < len(list) || !reflect.DeepEqual(got[:len(list)], list) {
				t.Errorf("%s was %v and is %v", key, was, now)
			}
			continue
		}
		if !reflect.DeepEqual(was, now) {
			t.Errorf("%s was %v and is %v", key, was, now)
		}
	}
	for key := range after {
		if _, ok := before[key]; !ok && key != "users" && key != "write_files" && key != "merge_how" && key != "merge_type" {
			t.Errorf("%s is new", key)
		}
	}
}

// topLevel decodes the values of the top level one by one, since a map takes no
// duplicates.
func topLevel(t *testing.T, doc string) map[string]any {
	t.Helper()
	var top yaml.Node
	if err := yaml.Unmarshal([]byte(doc), &top); err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	all := make(map[string]any)
	if len(top.Content) == 0 || top.Content[0].Kind != yaml.MappingNode {
		return all
	}
	for key, value := range pairs(top.Content[0]) {
		var v any
		if value.Decode(&v) != nil {
			v = value.Value
		}
		all[key.Value] = v
	}
	return all
}

func gz(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.String()
}

const theirMIME = `From nobody Thu Jan  1 00:00:00 1970
Content-Type: multipart/mixed; boundary="===1=="
MIME-Version: 1.0
Number-Attachments: 2

--===1==
Content-Type: text/cloud-config; charset="us-ascii"
Content-Transfer-Encoding: base64

I2Nsb3VkLWNvbmZpZwp1c2VyczoKICAtIG5hbWU6IGJvYgo=

--===1==
Content-Type: text/x-shellscript

#!/bin/sh
echo hello
--===1==--
`

// besides are documents that become parts. What is theirs comes out byte by
// byte.
var besides = map[string]struct {
	doc    string
	keep   bool   // the image's own user is in our list
	nested string // what of it is a part as it stands
}{
	"script":         {doc: "#!/bin/sh\necho hello\n", keep: true},
	"script-no-end":  {doc: "#!/bin/sh\necho hello", keep: true},
	"script-crlf":    {doc: "#!/bin/sh\r\necho hello\r\n", keep: true},
	"script-utf8":    {doc: "#!/bin/sh\necho Grüße\n", keep: true},
	"script-long":    {doc: "#!/bin/sh\n: " + strings.Repeat("x", 2000) + "\n", keep: true},
	"jinja":          {doc: "## template: jinja\n#cloud-config\nhostname: {{ v1.region }}\n", keep: true},
	"jinja-users":    {doc: "## template: jinja\n#cloud-config\nhostname: {{ v1.region }}\nusers:\n  - name: bob\n"},
	"jinja-no-clash": {doc: "## template: jinja\n#cloud-config\n# ssh_pwauth: true\n# - path: /var/lib/cloud/instance/totp-instance.yaml\nssh_pwauth: {{ 'false' }}\nwrite_files:\n  - path: /var/lib/cloud/instance/totp-instance.yaml.old\n    content: 'ssh_pwauth: true'\n", keep: true},
	"jinja-no-users": {doc: "## template: jinja\n#cloud-config\n# users:\nntp:\n  users: {{ v1.region }}\n", keep: true},
	"include":        {doc: "#include\nhttps://example.org/user-data\n", keep: true},
	"boothook":       {doc: "#cloud-boothook\n#!/bin/sh\ntrue\n", keep: true},
	"jsonp":          {doc: "#cloud-config-jsonp\n[{ \"op\": \"add\", \"path\": \"/hostname\", \"value\": \"web\" }]\n", keep: true},
	"archive":        {doc: "#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    users: [default]\n- |\n  #!/bin/sh\n  true\n"},
	"gzip":           {doc: gz("#cloud-config\nusers: [default]\n")},
	"gzip-of-script": {doc: gz("#!/bin/sh\ntrue\n"), keep: true},
	"mime":           {doc: theirMIME, nested: theirMIME},
	"gzip-of-mime":   {doc: gz(theirMIME), nested: theirMIME},
	"alias":          {doc: "#cloud-config\npeople: &people [default]\nusers: *people\n"},
	"anchored":       {doc: "#cloud-config\nusers: &people\n  - default\nbootcmd: *people\n"},
	"merge-key":      {doc: "#cloud-config\nbase: &base\n  write_files: []\n<<: *base\n", keep: true},
}

func TestMergeBeside(t *testing.T) {
	for name, tt := range besides {
		t.Run(name, func(t *testing.T) {
			out, err := ours.Merge(name, []byte(tt.doc))
			if err != nil {
				t.Fatal(err)
			}
			again, err := ours.Merge(name, []byte(tt.doc))
			if err != nil || !bytes.Equal(out, again) {
				t.Error("the same input gives another document")
			}
			if tt.nested != "" {
				if !bytes.Contains(out, []byte(tt.nested)) {
					t.Error("their multi-part is not there as it was")
				}
			}
			parts := readParts(t, out)
			if len(parts) != 2 {
				t.Fatalf("%d parts, want 2", len(parts))
			}
			if tt.nested == "" && parts[0] != tt.doc {
				t.Errorf("their part is %q, want %q", parts[0], tt.doc)
			}
			got := topLevel(t, parts[1])
			if got["merge_how"] != mergeRules {
				t.Errorf("merge_how is %v", got["merge_how"])
			}
			if keep := got["users"].([]any)[0] == "default"; keep != tt.keep {
				t.Errorf("the default user is kept: %v, want %v", keep, tt.keep)
			}
			checkDocument(t, ours, []byte(parts[1]))
		})
	}
}

// readParts reads a multi-part with another reader than cloud-init's.
func readParts(t *testing.T, doc []byte) []string {
	t.Helper()
	msg, err := mail.ReadMessage(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for r := mimemultipart.NewReader(msg.Body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		var body io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "base64" {
			body = base64.NewDecoder(base64.StdEncoding, p)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, string(text))
	}
}

func TestMergeErrors(t *testing.T) {
	type place struct {
		path         string
		line, column int
		rule         error
	}
	const head = "#cloud-config\n"
	const jinja = "## template: jinja\n" + head
	file := "write_files:\n  - {path: /etc/motd, content: x}\n  - path: /var/lib/cloud/instance/totp-instance.yaml\n"
	for _, tt := range []struct {
		name, doc string
		want      []place
	}{
		{"empty", "", []place{{"", 0, 0, ErrEmpty}}},
		{"blank", " \n\t\n", []place{{"", 0, 0, ErrEmpty}}},
		{"not UTF-8", head + "hostname: \xff\n", []place{{"", 2, 11, ErrNotUTF8}}},
		{"not UTF-8, script", "#!/bin/sh\n\xe4\n", []place{{"", 2, 1, ErrNotUTF8}}},
		{"UTF-16", "\xff\xfe#\x00c\x00", []place{{"", 1, 1, ErrNotUTF8}}},
		{"BOM", "\xef\xbb\xbf" + head, []place{{"", 1, 1, ErrBOM}}},
		{"no first line", "users:\n  - default\n", []place{{"", 1, 1, ErrHeader}}},
		{"wrong first line", "# cloud-config\nusers: []\n", []place{{"", 1, 1, ErrHeader}}},
		{"misspelt first line", "#cloud-configs\nusers: []\n", []place{{"", 1, 1, ErrHeader}}},
		{"first line too late", "\n# mine\n#cloud-config\n", []place{{"", 2, 1, ErrHeader}}},
		{"5 MB", head + strings.Repeat("# x\n", 5<<20/4), []place{{"", 0, 0, ErrTooLarge}}},
		{"gzip bomb", gz(strings.Repeat("#", 16<<20)), []place{{"", 0, 0, ErrTooLarge}}},
		{"gzip, cut short", gz(head + "hostname: web\n")[:20], []place{{"", 0, 0, ErrGzip}}},
		{"gzip of nothing known", gz("hello"), []place{{"", 1, 1, ErrHeader}}},
		{"gzip twice", gz(gz(head)), []place{{"", 0, 0, ErrHeader}}},
		{"tab", head + "users:\n\t- default\n", []place{{"", 3, 1, ErrTab}}},
		// The YAML package would take these, and cloud-init's would not.
		{"tab after a key", head + "hostname:\tweb\n", []place{{"", 2, 10, ErrTab}}},
		{"tab after a dash", head + "users:\n  - \tbob\n", []place{{"", 3, 5, ErrTab}}},
		{"tab in a flow list", head + "users: [a,\tb]\n", []place{{"", 2, 11, ErrTab}}},
		{"tab after a value", head + "hostname: web\t# mine\n", []place{{"", 2, 14, ErrTab}}},
		{"tab at the end of a line", head + "users:\t\n  - a\n", []place{{"", 2, 7, ErrTab}}},
		{"tab after quotes", head + "a: \"b\"\t# mine\n", []place{{"", 2, 7, ErrTab}}},
		{"tab after a quoted key", head + "'a'\t: b\n", []place{{"", 2, 4, ErrTab}}},
		{"tab after a flow list", head + "a: [b]\t\n", []place{{"", 2, 7, ErrTab}}},
		{"tab after an alias", head + "a: &x 1\nb: *x\t\nc: 1\n", []place{{"", 3, 6, ErrTab}}},
		{"tab after a block's mark", head + "a: |\t\n  b\n", []place{{"", 2, 5, ErrTab}}},
		{"tab in a value", head + "a: |\n  b\tc # \"\n\nd: e\tf\n", []place{{"", 5, 5, ErrTab}}},
		{"a template without its first line", head + "hostname: {{ v1.local_hostname }}\n", []place{{"", 2, 12, ErrUnread}}},
		{"a list as a key", head + "? [a]\n: b\n", []place{{"", 2, 3, ErrUnread}}},
		{"keys and values as a key, by an alias", head + "a: &x {b: c}\n*x : d\n", []place{{"", 3, 1, ErrUnread}}},
		{"an anchor twice", head + "a: &x 1\nb: {c: &x 2}\n", []place{{"", 3, 8, ErrUnread}}},
		{"an escape of JavaScript's", head + "a: \"x\"\nb: \"it\\'s\"\n", []place{{"", 3, 7, ErrUnread}}},
		{"an equals sign", head + "a: [=]\n", []place{{"", 2, 5, ErrUnread}}},
		{"a merge of a value", head + "a:\n  <<: b\n", []place{{"", 3, 7, ErrUnread}}},
		{"a merge of a list", head + "a: &x [b]\nc:\n  <<: *x\n", []place{{"", 4, 7, ErrUnread}}},
		{"a merge key as a value", head + "a: <<\n", []place{{"", 2, 4, ErrUnread}}},
		{"no such day", head + "a: 2023-02-29\n", []place{{"", 2, 4, ErrUnread}}},
		{"no such hour", head + "2024-02-29 24:00:00: a\n", []place{{"", 2, 1, ErrUnread}}},
		{"no such number", head + "a: !!int b\n", []place{{"", 2, 4, ErrUnread}}},
		{"syntax", head + "users: [a\n", []place{{"", 2, 10, ErrSyntax}}},
		{"two documents", head + "a: 1\n---\nb: 2\n", []place{{"", 3, 1, ErrDocuments}}},
		{"local tag", head + "hostname: web\nwrite_files: !custom\n  - {path: /x}\n", []place{{"", 3, 14, ErrTag}}},
		{"local tag of a value", head + "runcmd:\n  - [a, !vault b]\n", []place{{"", 3, 9, ErrTag}}},
		{"local tag of the whole", head + "!all\na: 1\n", []place{{"", 2, 1, ErrTag}}},
		{"local tag of a key", head + "!k a: 1\n", []place{{"", 2, 1, ErrTag}}},
		{"local tag, full", head + "a: !<!x> 1\n", []place{{"", 2, 4, ErrTag}}},
		{"a program's tag", head + "a: !!python/tuple [1]\n", []place{{"", 2, 4, ErrTag}}},
		{"a tag of another kind", head + "a: !!map [1]\n", []place{{"", 2, 4, ErrTag}}},
		{"a list", head + "- a\n", []place{{"", 2, 1, ErrType}}},
		{"users twice", head + "users: [a]\nusers: [b]\n", []place{{"users", 3, 1, ErrTwice}}},
		{"files twice", head + "write_files: []\nwrite_files: []\n", []place{{"write_files", 3, 1, ErrTwice}}},
		{"users by name", head + "users: bob\n", []place{{"users", 2, 8, ErrType}}},
		{"users of nothing", head + "users:\nhostname: web\n", []place{{"users", 2, 1, ErrEmpty}}},
		{"same file", head + file, []place{{"write_files[1].path", 4, 11, ErrSameFile}}},
		{"same file, other spelling", head + "write_files: [{path: /var/lib//cloud/instance/totp-instance.yaml}]\n", []place{{"write_files[0].path", 2, 22, ErrSameFile}}},
		{"same user, other key", head + "users:\n  - default\n  - ssh_authorized_keys: [" + bobSSH[:80] + "]\n    name: alice\n", []place{{"users[1]", 5, 11, ErrOtherKeys}}},
		{"same user, no key", head + "users: [alice]\n", []place{{"users[0]", 2, 9, ErrOtherKeys}}},
		{"same user, by a merge key", head + "a: &a {name: alice}\nusers:\n  - <<: *a\n    groups: adm\n", []place{{"users[0]", 2, 14, ErrOtherKeys}}},
		{"same file, by merge keys", head + "a: &a {path: " + ours.File() + "}\nb: &b {<<: [*a, {path: /etc/motd}]}\nwrite_files: [{<<: *b, path: /x}, {<<: *b}]\n",
			[]place{{"write_files[1].path", 2, 14, ErrSameFile}}},
		{"the layer by the key of the module", head + "hostname: web\ntotp:\n  version: 1\n", []place{{"totp", 3, 1, ErrTwoCarriers}}},
		{"the key of the module, twice", head + "totp: {}\ntotp: {}\n", []place{{"totp", 3, 1, ErrTwice}}},
		{"the key of the module in a template", jinja + "# totp:\n'totp': {{ v1.x }}\n", []place{{"totp", 4, 2, ErrTwoCarriers}}},
		{"the key of the module in gzip", gz(head + "totp: {}\n"), []place{{"totp", 2, 1, ErrTwoCarriers}}},
		{"passwords", head + "hostname: web\nssh_pwauth: yes\n", []place{{"ssh_pwauth", 3, 13, ErrPasswordAuth}}},
		{"passwords by an alias", head + "a: &a true\nssh_pwauth: *a\n", []place{{"ssh_pwauth", 2, 4, ErrPasswordAuth}}},
		{"passwords by a merge key", head + "a: &a {ssh_pwauth: true}\n<<: *a\n", []place{{"ssh_pwauth", 2, 20, ErrPasswordAuth}}},
		{"modules", head + "cloud_init_modules: [write-files]\n", []place{{"cloud_init_modules", 2, 21, ErrModules}}},
		{"passwords in a template", jinja + "hostname: {{ v1.region }}\nssh_pwauth: 'Yes' # for a while\n", []place{{"ssh_pwauth", 4, 14, ErrPasswordAuth}}},
		{"same file in a template", jinja + "write_files:\n{% for i in [1] %}\n  - content: x\n    path: \"/var/lib/cloud//instance/totp-instance.yaml\"\n{% endfor %}\n", []place{{"write_files", 6, 12, ErrSameFile}}},
		{"same file in a template, in braces", jinja + "write_files: [{path: /x}, {content: x, 'path': " + ours.File() + "}]\nssh_pwauth: true\n",
			[]place{{"write_files", 3, 48, ErrSameFile}, {"ssh_pwauth", 4, 13, ErrPasswordAuth}}},
		{"in MIME, a template", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/jinja2\n\n" + jinja + "ssh_pwauth: on\n--b--\n",
			[]place{{"part 1: ssh_pwauth", 3, 13, ErrPasswordAuth}}},
		{"all at once", head + "ssh_pwauth: true\nusers: [alice]\n" + file,
			[]place{{"ssh_pwauth", 2, 13, ErrPasswordAuth}, {"users[0]", 3, 9, ErrOtherKeys}, {"write_files[1].path", 6, 11, ErrSameFile}}},
		{"in gzip", gz(head + file), []place{{"write_files[1].path", 4, 11, ErrSameFile}}},
		{"in MIME", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n--b\nContent-Type: text/cloud-config\n\n" + head + "ssh_pwauth: 1\n--b--\n",
			[]place{{"part 2: ssh_pwauth", 2, 13, ErrPasswordAuth}}},
		{"in an archive", "#cloud-config-archive\n- |\n  #cloud-config\n  users: [alice]\n", []place{{"archive[0]: users[0]", 2, 9, ErrOtherKeys}}},
		{"archive with a local tag", "#cloud-config-archive\n- {type: text/plain, content: !x a}\n", []place{{"", 2, 31, ErrTag}}},
		{"archive, not a list", "#cloud-config-archive\na: b\n", []place{{"", 0, 0, ErrType}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := ours.Merge("web.yaml", []byte(tt.doc))
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("got %v, want %v\n%s", err, tt.want, out)
			}
			var got []place
			for _, e := range errs {
				if e.File != "web.yaml" {
					t.Errorf("the error does not name the file: %v", e)
				}
				got = append(got, place{e.Path, e.Line, e.Column, e.Rule})
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(place{}), cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestMergeMadeUser: of a user whom the document makes, nothing is said that would
// not come true.
func TestMergeMadeUser(t *testing.T) {
	s := Spec{Users: []User{{Name: "alice", Recipients: []string{aliceAge}, SSHKeys: []string{aliceSSH}, Sudo: true}}}
	_, err := s.Merge("web.yaml", []byte(inPlace["same-user"]))
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 1 || !errors.Is(errs[0], ErrNoAccount) || errs[0].Path != "users[0].sudo" || errs[0].Line != 3 || errs[0].Column != 11 {
		t.Errorf("got %v", err)
	}
}

// TestMergeWork: a document that is small, or of one long line, is not long to
// merge into.
func TestMergeWork(t *testing.T) {
	again := Header + "\na: &a {k: v}\n"
	for name := 'a'; name < 'h'; name++ {
		again += fmt.Sprintf("%c: &%c {<<: [%s*%c]}\n", name+1, name+1, strings.Repeat(fmt.Sprintf("*%c, ", name), 60), name)
	}
	for name, doc := range map[string]string{
		"merge keys of merge keys":         again + "<<: *h\nusers: [{<<: *h}]\n",
		"a merge key of itself":            Header + "\na: &a {<<: *a}\nusers: [{<<: *a}]\n",
		"a list in one line, beside a tab": Header + "\n#\t\na: [" + strings.Repeat("x, ", 60000) + "x]\n",
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan error, 1)
			go func() {
				_, err := ours.Merge("", []byte(doc))
				done <- err
			}()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Minute): // it takes less than a second on a machine that is not busy
				t.Error("takes too long")
			}
		})
	}
}

// TestMergeBombs: neither what is packed in parts, nor what is repeated by aliases, is
// looked at for ever. Where nothing ends it, each takes minutes, and is no error.
func TestMergeBombs(t *testing.T) {
	large := Header + "\na: [" + strings.Repeat(strings.Repeat("x", 98)+", ", 9000) + "x]\n"
	mime := func(part string) string {
		text := wrapped([]byte(part))
		part = "--b\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n" + string(text) + "\n"
		return "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat(part, (MaxSize-200)/len(part)) + "--b--\n"
	}
	spoilt := []byte(gz(large))
	spoilt[len(spoilt)-8]++ // the check sum
	for name, tt := range map[string]struct {
		doc  string
		want error
	}{
		"parts that unpack to much":      {mime(gz(large)), ErrTooLarge},
		"parts that unpack to too much":  {mime(gz(strings.Repeat("#", 16<<20))), ErrTooLarge},
		"parts that are damaged at last": {mime(string(spoilt)), nil},
		"an item of an archive again":    {"#cloud-config-archive\n- &a " + strconv.Quote(large[:500000]+"x]\n") + "\n" + strings.Repeat("- *a\n", 100000), ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ours.Merge("", []byte(tt.doc))
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("%d bytes: %v, want %v", len(tt.doc), err, tt.want)
			}
			var errs Errors
			if errors.As(err, &errs) && len(errs) > 8 {
				t.Errorf("%d errors", len(errs))
			}
		})
	}
}

// TestMergeTwice: a document that was merged into is recognised.
func TestMergeTwice(t *testing.T) {
	for _, doc := range []string{inPlace["plain"], besides["script"].doc} {
		once, err := ours.Merge("", []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Merge("", once); !errors.Is(err, ErrSameFile) {
			t.Errorf("got %v, want ErrSameFile", err)
		}
	}
}

func TestMergeVendor(t *testing.T) {
	s := specs["vendor"]
	out, err := s.Merge("", []byte(inPlace["plain"]))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "merge-vendor", out)
	checkMerged(t, inPlace["plain"], string(out))
	if got := topLevel(t, string(out)); got["merge_how"] != mergeRules || got["merge_type"] != mergeRules {
		t.Errorf("merge rules are %v and %v", got["merge_how"], got["merge_type"])
	}
	if _, err := s.Merge("", []byte("#cloud-config\nmerge_how: list()\n")); !errors.Is(err, ErrMergeHow) {
		t.Errorf("got %v, want ErrMergeHow", err)
	}
	out, err = s.Merge("", []byte("#cloud-config\n{\"a\": 1}"))
	if err != nil {
		t.Fatal(err)
	}
	checkMerged(t, "#cloud-config\n{\"a\": 1}", string(out))
}

// FuzzMerge: whatever the document, Merge does not panic, and what it returns has
// every byte and every key of it.
func FuzzMerge(f *testing.F) {
	for _, doc := range inPlace {
		f.Add([]byte(doc), false)
		f.Add([]byte(doc), true)
	}
	for _, b := range besides {
		f.Add([]byte(b.doc), false)
	}
	f.Add([]byte("#cloud-config\nwrite_files: !custom\n  - {path: /x}\n"), false)
	f.Fuzz(func(t *testing.T, doc []byte, vendor bool) {
		s := ours
		if vendor {
			s = specs["vendor"]
		}
		out, err := s.Merge("", doc)
		if err != nil {
			return
		}
		k, e := kindOf(doc)
		if e != nil {
			t.Fatalf("accepted: %v", e)
		}
		switch after, e := kindOf(out); {
		case e != nil:
			t.Fatalf("cloud-init would not know the result: %v", e)
		case after == cloudConfig:
			if !inserted(string(doc), string(out)) {
				t.Error("bytes are lost")
			}
			checkMerged(t, string(doc), string(out))
		case k == multipart:
			if !bytes.Contains(out, doc) {
				t.Error("bytes are lost")
			}
		case k == packed:
			// cloud-init unpacks what is inside, or it is here already.
			text, e := unpack(doc)
			if e != nil {
				t.Fatal(e)
			}
			if parts := readParts(t, out); !bytes.Contains(out, text) && (len(parts) != 2 || parts[0] != string(doc)) {
				t.Error("bytes are lost")
			}
		default:
			if parts := readParts(t, out); len(parts) != 2 || parts[0] != string(doc) {
				t.Error("bytes are lost")
			}
		}
	})
}

// TestMergeCuts merges many beginnings of the documents, and many with a byte
// changed: none panics, and none is merged wrongly.
func TestMergeCuts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, doc := range inPlace {
		for i := 0; i < len(doc); i += 2 {
			for _, d := range []string{doc[:i], doc[:i] + string(rune(32+random.IntN(95))) + doc[i+1:]} {
				out, err := ours.Merge(name, []byte(d))
				if err != nil || !strings.HasPrefix(strings.ToLower(strings.TrimSpace(string(out))), Header) {
					continue
				}
				if !inserted(d, string(out)) {
					t.Errorf("%q: bytes are lost", d)
				}
				checkMerged(t, d, string(out))
			}
		}
	}
}

// TestMergeTakesWhatCloudInitReads: what looks like something that is refused.
// PyYAML 5.3.1 and 6.0.2 read all of these.
func TestMergeTakesWhatCloudInitReads(t *testing.T) {
	for _, doc := range []string{
		"a: |\n  make:\n  \tall # \"\t\n\nb: '\t'\n",
		"a: |2\n    b\n  \tc\nd: e\n",
		"runcmd:\n- |\n  cat <<EOF\n  \ta\n  EOF\n- [sh, -c, \"a\tb\"]\n",
		"a: >-\n  b\tc\n#\td\ne: f # \tg\n",
		"a: it's\nb: 'it''s\t'\nc: \"\\\"\t\\\\\"\nd: \"'\"\n",
		"a: &x \"b\tc\"\nd: *x\ne: !!str 'f\tg'\n",
		"a: b\r\nc: \"d\t\"\r\ne: |\r\n  f\tg\r\nh: i\r\n",
		"a: &x {b: c}\nd: {<<: *x, e: f}\ng: {<<: [*x, {h: i}]}\n",
		"a: 2024-02-29\nb: 2001-12-14t21:59:43.10-05:00\nc: \"2023-02-29\"\nd: 2023-02-29x\n",
		"a: \"=\"\n=: b\nc: \"{{ d }}\"\ne: x{{ f }}\n",
		"a: !!float 1\nb: !!int \"3\"\nc: !!bool \"yes\"\n",
	} {
		if _, err := ours.Merge("", []byte(Header+"\n"+doc)); err != nil {
			t.Errorf("%q: %v", doc, err)
		}
	}
}

// TestMergeSaysHow: of what cloud-init would read and the YAML package does not, the
// error does not say that cloud-init would not either; what it says to do helps.
func TestMergeSaysHow(t *testing.T) {
	for doc, done := range map[string]string{
		"{\"runcmd\": [\"\\/bin\\/true\"]}\n": "{\"runcmd\": [\"/bin/true\"]}\n",
		"a: |\n  \tb\n":                       "a: |2\n  \tb\n",
		"write_files:\n- path: /a\n  content: >-\n    \tb\n    c\n": "write_files:\n- path: /a\n  content: >2-\n    \tb\n    c\n",
	} {
		_, err := ours.Merge("", []byte(Header+"\n"+doc))
		if !errors.Is(err, ErrSyntax) || strings.Contains(err.Error(), "cloud-init") {
			t.Errorf("%q: %v", doc, err)
		}
		if _, err := ours.Merge("", []byte(Header+"\n"+done)); err != nil {
			t.Errorf("%q: %v", done, err)
		}
	}
}
