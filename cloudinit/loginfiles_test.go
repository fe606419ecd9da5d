// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/base64"
	"errors"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// TestLoginFiles lists what documents do to the login of the image, and what is
// harmless there.
func TestLoginFiles(t *testing.T) {
	const head = "#cloud-config\n"
	const jinja = "## template: jinja\n" + head
	file := func(name, content string) string {
		return head + "write_files:\n  - path: " + name + "\n    content: |\n      " + strings.ReplaceAll(content, "\n", "\n      ") + "\n"
	}
	coded := func(name, encoding, content string) string {
		return head + "write_files:\n  - path: " + name + "\n    encoding: " + encoding + "\n    content: " + base64.StdEncoding.EncodeToString([]byte(content)) + "\n"
	}
	const execStart = "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -f /etc/ssh/mine"
	const dropIn = "/etc/systemd/system/ssh.service.d/override.conf"
	one := func(path string, rule error) []problem { return []problem{{path, rule}} }
	inFile := func(rule error) []problem { return one("write_files[0].path", rule) }
	for _, tt := range []struct {
		name, doc      string
		refused, warns []problem
	}{
		{"main file of sshd", file(target.SSHDMain, "Port 22"), inFile(ErrLoginFile), nil},
		{"login settings", file(target.SSHDLogin, "Port 22"), inFile(ErrLoginFile), nil},
		{"drop-in of the image", file(target.SSHDDropIn, "Port 22"), inFile(ErrLoginFile), nil},
		{"host keys of the image", file(target.SSHDHostKeys, "Port 22"), inFile(ErrLoginFile), nil},
		{"PAM", file(target.PAMService, "auth required pam_permit.so"), inFile(ErrLoginFile), nil},
		{"PAM's copy", file(target.PAMCopy, "auth required pam_permit.so"), inFile(ErrLoginFile), nil},
		{"PAM, other spelling", file("/etc//pam.d/../pam.d/sshd", "auth required pam_permit.so"), inFile(ErrLoginFile), nil},
		{"a secret", file(target.PAMStateDir+"/anna", "ABC"), inFile(ErrLoginFile), nil},
		{"the agent", file(target.AgentPath, "#!/bin/sh"), inFile(ErrLoginFile), nil},
		{"its policy", file(target.ImagePolicy, "version: 1"), inFile(ErrLoginFile), nil},
		{"its state", file(target.Identity, "{}"), inFile(ErrLoginFile), nil},
		{"its state on /run", file("/var/run/totp-agent/sshd-closed.conf", "x"), inFile(ErrLoginFile), nil},
		{"the other layer", file(target.VendorPolicy, "version: 1"), inFile(ErrLoginFile), nil},
		{"its unit", file("/etc/systemd/system/"+target.AgentService, "[Unit]"), inFile(ErrLoginFile), nil},
		{"a drop-in of its unit", file("/etc/systemd/system/"+target.AgentService+".d/a.conf", "[Unit]"), inFile(ErrLoginFile), nil},
		{"the image's drop-in of sshd's unit", file("/etc/systemd/system/ssh.service.d/00-totp.conf", "[Service]"), inFile(ErrLoginFile), nil},

		{"ExecStart", file(dropIn, execStart), inFile(ErrSSHUnit), nil},
		{"ExecStart of ssh@", file("/etc/systemd/system/ssh@.service.d/a.conf", execStart), inFile(ErrSSHUnit), nil},
		{"ExecStart of sshd", file("/run/systemd/system/sshd.service.d/a.conf", execStart), inFile(ErrSSHUnit), nil},
		{"ExecStart of all services", file("/etc/systemd/system/service.d/a.conf", execStart), inFile(ErrSSHUnit), nil},
		{"another root", file(dropIn, "[Service]\n  RootDirectory = /srv"), inFile(ErrSSHUnit), nil},
		{"other files", file(dropIn, "[Service]\nBindPaths=/srv/ssh:/etc/ssh"), inFile(ErrSSHUnit), nil},
		{"ExecStart in base64", coded(dropIn, "b64", execStart), inFile(ErrSSHUnit), nil},
		{"ExecStart in gzip", coded(dropIn, "gz+base64", gz(execStart)), inFile(ErrSSHUnit), nil},
		{"ExecStart in binary", head + "write_files:\n  - path: " + dropIn + "\n    content: !!binary " + base64.StdEncoding.EncodeToString([]byte(execStart)) + "\n", inFile(ErrSSHUnit), nil},
		{"a unit from elsewhere", head + "write_files:\n  - path: " + dropIn + "\n    source: {uri: https://example.com/x}\n", nil, inFile(ErrSSHUnit)},
		{"a unit of damaged base64", head + "write_files:\n  - {path: " + dropIn + ", encoding: b64, content: '?'}\n", nil, inFile(ErrSSHUnit)},
		{"the whole unit", file("/etc/systemd/system/ssh.service", execStart), nil, inFile(ErrSSHUnit)},
		{"by a merge key", head + "a: &a {path: /etc/pam.d/sshd}\nwrite_files:\n  - {<<: *a, content: x}\n", inFile(ErrLoginFile), nil},
		{"keys with capitals and a dash", head + "write-files: []\n", nil, nil},

		{"sshd_config", file("/etc/ssh/sshd_config", "Port 2222\nPermitRootLogin no\nPasswordAuthentication yes\nUsePAM yes\nMatch Group admins\n  AuthenticationMethods publickey"), nil, inFile(ErrNoEffect)},
		{"a drop-in of sshd", file("/etc/ssh/sshd_config.d/60-mine.conf", "allowusers=mara\nKbdInteractiveAuthentication no"), nil, []problem{{"write_files[0].path", ErrDenies}, {"write_files[0].path", ErrNoEffect}}},
		{"DenyGroups", file("/etc/ssh/sshd_config.d/60-mine.conf", "DenyGroups \"a\""), nil, inFile(ErrDenies)},
		{"nologin", file("/run/nologin", "no"), nil, inFile(ErrDenies)},
		{"passwd", file(target.Passwd, "root:x:0:0::/root:/bin/sh"), nil, inFile(ErrDenies)},
		{"PAM of all services", file("/etc/pam.d/common-account", "account required pam_access.so"), nil, inFile(ErrDenies)},

		{"harmless settings", file("/etc/ssh/sshd_config.d/60-mine.conf", "Port 2222\n# PasswordAuthentication yes\nBanner /etc/issue"), nil, nil},
		{"not a drop-in", file("/etc/ssh/sshd_config.d/60-mine.conf.off", "DenyUsers *"), nil, nil},
		{"options of the distribution", file("/etc/default/ssh", "SSHD_OPTS=-oPort=2222"), nil, nil},
		{"a harmless drop-in", file(dropIn, "[Service]\nRestart=always\nExecStartPre=/bin/true\n#ExecStart=/x"), nil, nil},
		{"the socket", file("/etc/systemd/system/ssh.socket.d/a.conf", "[Socket]\nListenStream=2222"), nil, nil},
		{"another service", file("/etc/systemd/system/web.service", execStart), nil, nil},
		{"another PAM service", file("/etc/pam.d/cron", "auth required pam_permit.so"), nil, nil},
		{"a client's settings", file("/etc/ssh/ssh_config.d/a.conf", "PasswordAuthentication no"), nil, nil},
		{"names that begin alike", head + "write_files:\n  - {path: /etc/pam.d/sshd.bak}\n  - {path: /etc/ssh/sshd_config.old}\n  - {path: /usr/local/sbin/totp-agent2}\n", nil, nil},
		{"another file", file("/etc/motd", "hello"), nil, nil},

		{"installer", head + "autoinstall:\n  version: 1\n", one("autoinstall", ErrInstaller), nil},
		{"installer below", head + "a:\n  autoinstall: {}\n", nil, nil},
		{"/var", head + "mounts:\n  - [LABEL=data, /var, ext4]\n", one("mounts[0]", ErrHidden), nil},
		{"/var/lib/cloud", head + "mounts:\n  - [swap, none]\n  - [a, /srv]\n  - [b, /var/lib/cloud/]\n", one("mounts[2]", ErrHidden), nil},
		{"the secrets", head + "mounts: [[a, /var/lib/google-authenticator]]\n", one("mounts[0]", ErrHidden), nil},
		{"/etc/ssh", head + "mounts: [[a, /etc/ssh]]\n", one("mounts[0]", ErrHidden), nil},
		{"harmless mounts", head + "mounts:\n  - [a, /]\n  - [b, /var/log]\n  - [c, /home]\n  - [d, /var/lib/docker]\n  - [e]\n  - [f, null]\n  - [g, /varied]\n", nil, nil},

		{"template, users as keys", jinja + "users:\n  default: true\n  mara: true\nhostname: {{ v1.local_hostname }}\n", one("users", ErrType), nil},
		{"template, users as text", jinja + "users: default,mara\n", one("users", ErrType), nil},
		{"template, users in braces", jinja + "users: {default: true}\n", one("users", ErrType), nil},
		{"template, users as a block of text", jinja + "users: |\n  a\n", one("users", ErrType), nil},
		{"template, files as keys", jinja + "'write_files':\n\n  # one\n  path: /x\n", one("write_files", ErrType), nil},
		{"template, users of nothing", jinja + "users:\nhostname: x\n", one("users", ErrEmpty), nil},
		{"template, users null", jinja + "users: null # none\n", one("users", ErrEmpty), nil},
		{"template, lists", jinja + "users: # all\n{% for u in x %}\n  - {{ u }}\n{% endfor %}\nwrite_files:\n- path: /x\n", nil, nil},
		{"template, lists in brackets", jinja + "users: [default]\nwrite_files: {{ files }}\n", nil, nil},
		{"template, users by an expression", jinja + "users:\n  {{ users }}\n", nil, nil},
		{"template, PAM", jinja + "write_files:\n  - path: /etc/pam.d/sshd\n", one("write_files", ErrLoginFile), nil},
		{"template, unit", jinja + "write_files:\n  - path: " + dropIn + "\n", nil, one("write_files", ErrSSHUnit)},
		{"template, installer", jinja + "autoinstall:\n  version: 1\n", one("autoinstall", ErrInstaller), nil},
		{"template, mounts", jinja + "mounts:\n  - [ LABEL=data, /var, ext4 ]\n  - [ b, \"/srv\" ]\npackages: [x, /var]\n", one("mounts", ErrHidden), nil},

		{"in MIME", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/cloud-config\n\n" + file(target.PAMService, "x") + "--b--\n",
			one("part 1: write_files[0].path", ErrLoginFile), nil},
		{"in MIME, a warning", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/cloud-config\n\n" + file("/etc/nologin", "x") + "--b--\n",
			nil, one("part 1: write_files[0].path", ErrDenies)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := anna(annaKey).Merge("web.yaml", []byte(tt.doc))
			var errs Errors
			errors.As(err, &errs)
			checkProblems(t, "errors", errs, tt.refused)
			warnings, _ := anna(annaKey).Review(Host{}, "web.yaml", []byte(tt.doc))
			checkProblems(t, "warnings", warnings, tt.warns)
			for _, e := range append(errs, warnings...) {
				if e.Line == 0 || e.Column == 0 || e.File != "web.yaml" {
					t.Errorf("%v: no place", e)
				}
			}
		})
	}
}

// TestOtherWays lists what lets users in without a code.
func TestOtherWays(t *testing.T) {
	const head = "#cloud-config\n"
	image := imageOf(t, "9.2", "sshd: {exempt_groups: [ansible], exempt_users: [backup]}\n")
	one := func(path string, rule error) []problem { return []problem{{path, rule}} }
	user := func(more string) string {
		return head + "users:\n  - name: anna\n    ssh_authorized_keys: [\"" + annaKey + "\"]\n    " + more + "\n"
	}
	for _, tt := range []struct {
		name, doc string
		warns     []problem
	}{
		{"another SSH server", head + "packages: [nginx, dropbear]\n", one("packages[1]", ErrOtherServer)},
		{"with a version", head + "packages:\n  - [cockpit, 1.0]\n", one("packages[0]", ErrOtherServer)},
		{"packages", head + "packages: [openssh-server, dropbear-bin]\n", nil},
		{"an exempt group", user("groups: [adm, ansible]"), one("users[0].groups", ErrExempt)},
		{"in a text", user("groups: adm, ansible"), one("users[0].groups", ErrExempt)},
		{"as keys", user("groups: {ansible: }"), one("users[0].groups", ErrExempt)},
		{"as the primary group", user("primary_group: ansible"), one("users[0].primary_group", ErrExempt)},
		{"members of a group", head + "groups:\n  - adm\n  - ansible: [mara, anna]\n", one("groups", ErrExempt)},
		{"members of a group in a mapping", head + "groups: {ansible: anna}\n", one("groups", ErrExempt)},
		{"another group", user("groups: [adm]"), nil},
		{"another user", head + "users:\n  - default\n  - {name: robot, groups: ansible}\ngroups: [ansible, {ansible: [robot]}]\n", nil},
	} {
		spec := anna()
		if !strings.Contains(tt.doc, "name: anna") {
			spec = anna(annaKey)
		}
		warnings, errs := spec.Review(Host{Image: image}, "web.yaml", []byte(tt.doc))
		checkProblems(t, tt.name, warnings, tt.warns)
		checkProblems(t, tt.name, errs, nil)
	}
	for name, want := range map[string][]problem{"backup": one("users[0].name", ErrExempt), "root": nil, "debian": nil} {
		warnings, _ := enrolled(name).Review(Host{Image: image}, "", nil)
		checkProblems(t, name, warnings, want)
	}
}

// TestLoginPaths compares the lists with what the agent and the bake have.
func TestLoginPaths(t *testing.T) {
	for _, p := range []string{
		target.AgentPath, target.PolicyDir, target.StateDir, target.RunDir, target.PAMService, target.PAMCopy, target.PAMStateDir, target.PAMTallyDir,
		target.SSHDMain, target.SSHDLogin, target.SSHDDropIn, target.SSHDHostKeys,
		target.VendorPolicy, target.InstancePolicy, target.VendorModule, target.InstanceModule,
	} {
		if !loginSet.MatchString(p) {
			t.Errorf("%s is not among the files of the login", p)
		}
	}
	if err := fsWalk("../templates/files", func(name string) {
		if !loginSet.MatchString(name) && path.Ext(name) != ".debian" && path.Ext(name) != ".redhat" && !strings.HasSuffix(name, "cc_totp.py") {
			t.Errorf("%s, which the bake writes, is not among the files of the login", name)
		}
	}); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../internal/bake/settings.go")
	if err != nil {
		t.Fatal(err)
	}
	_, auth, _ := strings.Cut(string(source), "var auth = ")
	auth, _, _ = strings.Cut(auth, "var session = ")
	found := regexp.MustCompile(`keyword: "(\w+)"`).FindAllStringSubmatch(auth, -1)
	if len(found) < 10 {
		t.Fatalf("%d keywords", len(found))
	}
	for _, k := range found {
		if !slices.Contains(noEffect, k[1]) {
			t.Errorf("%s is not among the keywords that the image decides", k[1])
		}
	}
	source, err = os.ReadFile("../internal/bake/sshunit.go")
	if err != nil {
		t.Fatal(err)
	}
	_, other, _ := strings.Cut(string(source), "var otherFiles = ")
	other, _, _ = strings.Cut(other, "}\n\n")
	for _, k := range regexp.MustCompile(`"(\w+)"`).FindAllStringSubmatch(other, -1) {
		if !unitLine.MatchString(k[1] + "=x") {
			t.Errorf("%s of a unit is not looked for", k[1])
		}
	}
}

func fsWalk(dir string, each func(name string)) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			if err := fsWalk(name, each); err != nil {
				return err
			}
			continue
		}
		each(strings.TrimPrefix(name, "../templates/files"))
	}
	return nil
}
