// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/base64"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// loginPaths are the files and directories, see pathsOf, that the login of a
// baked image depends on, see internal/target. What is below a directory is among them.
var loginPaths = []string{
	"/etc/pam.d/sshd", "/usr/lib/pam.d/sshd",
	"/etc/ssh/sshd_totp.conf", "/etc/ssh/sshd_totp_login.conf", "/etc/ssh/sshd_config.d/00-0?-totp*.conf",
	"/etc/systemd/system/ssh*.service.d/00-totp.conf", "/etc/systemd/system/totp-*",
	"/usr/local/sbin/totp-agent", "/etc/totp-agent", "/var/lib/totp-agent", "/run/totp-agent",
	"/var/lib/google-authenticator", "/run/faillock-sshd", "/var/lib/cloud/instance/totp-*.yaml",
	"/etc/dpkg/dpkg.cfg.d/totp-agent", "/etc/tmpfiles.d/totp-agent.conf", "/etc/systemd/system-preset/00-totp.preset",
}

// sharedPaths are files that PAM or sshd read at each login, and that are not ours.
var sharedPaths = []string{
	"/etc/pam.d/common-*", "/etc/pam.d/*-auth", "/etc/pam.d/postlogin", "/etc/pam.d/other",
	"/etc/nologin", "/run/nologin", "/etc/passwd", "/etc/shadow", "/etc/nsswitch.conf",
}

// sshdPaths are the settings of sshd that the image reads after its own.
var sshdPaths = []string{"/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*.conf"}

// unitPaths are drop-ins of sshd's units, and wholePaths the units.
var unitPaths, wholePaths = func() (dropIns, units []string) {
	for _, dir := range []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		for _, name := range []string{"ssh.service", "sshd.service", "ssh@.service", "sshd@.service"} {
			dropIns, units = append(dropIns, dir+"/"+name+".d/*.conf"), append(units, dir+"/"+name)
		}
		dropIns = append(dropIns, dir+"/service.d/*.conf")
	}
	return dropIns, units
}()

var (
	// unitLine are the settings of a unit of sshd that check reports as critical.
	unitLine = regexp.MustCompile(`(?m)^[ \t]*(ExecStart|RootDirectory|RootImage|RootHash|BindPaths|BindReadOnlyPaths|MountImages|ExtensionImages|ExtensionDirectories|TemporaryFileSystem|InaccessiblePaths|InaccessibleDirectories|User|DynamicUser|PAMName|JoinsNamespaceOf)[ \t]*=[ \t]*[^\s]`)

	// noEffect are sshd keywords that the image sets for the login.
	noEffect = []string{
		"AuthenticationMethods", "PubkeyAuthentication", "KbdInteractiveAuthentication", "ChallengeResponseAuthentication", "PasswordAuthentication",
		"PermitEmptyPasswords", "HostbasedAuthentication", "GSSAPIAuthentication", "KerberosAuthentication", "UsePAM", "PAMServiceName", "PermitRootLogin",
	}

	// denies are the keywords that the image leaves alone, and that refuse users.
	denies = []string{"AllowUsers", "AllowGroups", "DenyUsers", "DenyGroups", "ForceCommand", "AuthorizedKeysFile"}
)

const (
	fixLoginFile = "leave it out; settings of sshd go into /etc/ssh/sshd_config.d"
	fixUnit      = "leave that line out; settings of sshd go into /etc/ssh/sshd_config.d"
	fixDenies    = "make sure that it admits every enrolled user"
	fixNoEffect  = "leave them out, and bake the image with another policy if it should differ"
	fixInstaller = "merge into the document that is under autoinstall.user-data, and put the result there"
	fixMounts    = "mount the disk elsewhere, or make the file system when the image is built"
)

// A pathSet matches paths, and what is below them.
type pathSet struct{ *regexp.Regexp }

// pathsOf makes a set of patterns in which * and ? match within one name.
func pathsOf(patterns []string) pathSet {
	text := regexp.QuoteMeta(strings.Join(patterns, "\n"))
	text = strings.NewReplacer(`\*`, "[^/]*", `\?`, "[^/]", "\n", "|").Replace(text)
	return pathSet{regexp.MustCompile("^(?:" + text + ")(?:/|$)")}
}

var loginSet, sharedSet, sshdSet, unitSet, wholeSet = pathsOf(loginPaths), pathsOf(sharedPaths), pathsOf(sshdPaths), pathsOf(unitPaths), pathsOf(wholePaths)

// realPath returns a path as it is on every system: /var/run is a link.
func realPath(name string) string {
	name = path.Clean(name)
	if rest, ok := strings.CutPrefix(name, "/var/run/"); ok {
		return "/run/" + rest
	}
	return name
}

// loginFiles finds what write_files does to the login. It returns what is certain, and
// keeps the rest as warnings.
func (m *merger) loginFiles(t theirs) (errs Errors) {
	items, _ := t.list("write_files")
	paths, contents, encodings := lookFor("path"), lookFor("content"), lookFor("encoding")
	for i, n := range items {
		if n.Kind != yaml.MappingNode {
			continue
		}
		f := paths.in(n)
		if f == nil || f.value.Kind != yaml.ScalarNode || path.Clean(f.value.Value) == m.spec.File() {
			continue
		}
		content, known := "", false
		if c := contents.in(n); c != nil {
			encoding := ""
			if e := encodings.in(n); e != nil {
				encoding = e.value.Value
			}
			content, known = m.decoded(c.value, encoding)
		}
		where := at(f.value, fmt.Sprintf("write_files[%d].path", i), f.value.Value, nil, "")
		errs = append(errs, m.loginFile(*where, content, known)...)
	}
	return errs
}

// loginFile looks at one file. where names it.
func (m *merger) loginFile(where Error, content string, known bool) Errors {
	name := realPath(where.Value)
	warn := func(rule error, fix string) {
		w := where
		w.Path, w.Rule, w.Fix = m.prefix+w.Path, rule, fix
		m.warnings = append(m.warnings, &w)
	}
	refuse := func(rule error, fix string) Errors {
		where.Rule, where.Fix = rule, fix
		return Errors{&where}
	}
	switch {
	case loginSet.MatchString(name):
		return refuse(ErrLoginFile, fixLoginFile)
	case sharedSet.MatchString(name):
		warn(ErrDenies, fixDenies)
	case wholeSet.MatchString(name):
		warn(ErrSSHUnit, fixUnit)
	case unitSet.MatchString(name):
		if found := unitLine.FindStringSubmatch(content); found != nil {
			return refuse(fmt.Errorf("%w (%s)", ErrSSHUnit, found[1]), fixUnit)
		} else if !known {
			warn(ErrSSHUnit, fixUnit)
		}
	case sshdSet.MatchString(name):
		if words := keywordsOf(content, denies); len(words) > 0 {
			warn(fmt.Errorf("%w: %s", ErrDenies, strings.Join(words, ", ")), fixDenies)
		}
		if words := keywordsOf(content, noEffect); len(words) > 0 {
			warn(fmt.Errorf("%w: %s", ErrNoEffect, strings.Join(words, ", ")), fixNoEffect)
		}
	}
	return nil
}

// keywordsOf returns the keywords of a list that settings of sshd have, also in a Match
// block.
func keywordsOf(settings string, list []string) (words []string) {
	for line := range strings.Lines(settings) {
		word := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n=\"", r) })
		if len(word) == 0 {
			continue
		}
		i := slices.IndexFunc(list, func(k string) bool { return strings.EqualFold(k, word[0]) })
		if i >= 0 && !slices.Contains(words, list[i]) {
			words = append(words, list[i])
		}
	}
	return words
}

// decoded returns the content of a file as cloud-init's module write_files decodes it;
// false where that cannot be known here.
func (m *merger) decoded(n *yaml.Node, encoding string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		return "", false
	}
	text := n.Value
	coded := strings.Split(strings.ToLower(strings.TrimSpace(encoding)), "+")
	if last := coded[len(coded)-1]; last == "b64" || last == "base64" || n.ShortTag() == "!!binary" {
		plain, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			return "", false
		}
		text = string(plain)
	}
	if coded[0] == "gz" || coded[0] == "gzip" {
		plain, e := unpack([]byte(text))
		if m.looked += len(plain); e != nil || m.looked > maxLook {
			return "", false
		}
		text = string(plain)
	}
	return text, true
}

// hidden finds file systems that are mounted over what the login depends on, and the
// policy: cloud-init mounts them after it has written it.
func (m *merger) hidden(t theirs) (errs Errors) {
	f, _ := t.get("mounts")
	if f == nil || f.value.Kind != yaml.SequenceNode {
		return nil
	}
	for i, n := range f.value.Content {
		if n = resolve(n); n.Kind != yaml.SequenceNode || len(n.Content) < 2 {
			continue
		}
		if point := resolve(n.Content[1]); point.Kind == yaml.ScalarNode && m.hides(point.Value) {
			errs = append(errs, at(point, fmt.Sprintf("mounts[%d]", i), point.Value, ErrHidden, fixMounts))
		}
	}
	return errs
}

// hides reports whether something that is needed is below a directory.
func (m *merger) hides(point string) bool {
	if point = path.Clean(point); !path.IsAbs(point) || point == "/" {
		return false // "/" is mounted, and gets other options
	}
	point += "/"
	return slices.ContainsFunc(append([]string{m.spec.File()}, loginPaths...), func(p string) bool {
		return strings.HasPrefix(p+"/", point) && !strings.HasPrefix(p, "/run/")
	})
}

// installer finds a document for Ubuntu's installer.
func installer(t theirs) Errors {
	f, e := t.get("autoinstall")
	switch {
	case e != nil:
		return Errors{e}
	case f == nil:
		return nil
	}
	return Errors{at(f.key, "autoinstall", "", ErrInstaller, fixInstaller)}
}
