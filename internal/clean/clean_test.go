// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

func newImage(t *testing.T, files map[string]string) *target.Target {
	t.Helper()
	tt, _ := targettest.New(t)
	for name, text := range files {
		targettest.Put(t, tt, name, text, 0o600)
	}
	return tt
}

const passwd = "root:x:0:0::/root:/bin/bash\npacker:x:1000:1000::/home/packer:/bin/bash\nalice:x:1001:1001::/home/alice:/bin/bash\ntoor:x:0:0::/root:/bin/sh\n"

func kinds(ls []Leak) (ks []string) {
	for _, l := range ls {
		ks = append(ks, l.Kind)
	}
	slices.Sort(ks)
	return slices.Compact(ks)
}

// Each kind of leak by a file of its own, and none in an image that is clean.
func TestLeaks(t *testing.T) {
	clean := map[string]string{
		target.Passwd:                      passwd,
		"/etc/shadow":                      "root:*:1::::::\nalice:$y$x:1::::::\n",
		target.MachineID:                   "",
		target.ImagePolicy:                 "version: 1\nusers: [{name: alice}]\nclean: {build_user: builder}\n",
		target.Report:                      "{}",
		target.CleanMark:                   "{}",
		"/etc/sudoers.d/10-a":              "alice ALL=(ALL) ALL\n",
		"/home/alice/.ssh/authorized_keys": "ssh-ed25519 A alice\n", // she is the policy's
		"/etc/ssh/sshd_config.d/60.conf":   "# AuthorizedKeysFile /etc/hosts\nauthorizedkeysfile=\"/etc/ssh/keys/%u\" .ssh/authorized_keys # /etc/hosts\nMatch User *\n\tAuthorizedKeysFile /etc/ssh/uid-%U.keys %h/keys none /dev/null\n",
		"/etc/ssh/sshd_config":             "HostKey /etc/ssh/ssh_host_rsa_key\n#HostKey /etc/hosts\nhostkey=\"/etc/ssh/own/key\"\nInclude \"/etc/ssh/more/*.cfg\" other.cfg\n",
		"/etc/ssh/more/1.cfg":              "AuthorizedKeysFile .ssh/more\nInclude /etc/ssh/sshd_config\n",
		"/etc/ssh/other.cfg":               "HostKey\t/etc/ssh/other_key\r\n",
		"/etc/ssh/keys/alice":              "ssh-ed25519 A alice\n",
		"/etc/hosts":                       "127.0.0.1 localhost\n",
		"/home/packer/.ssh/known_hosts":    "x",
		"/etc/sudoers":                     "root ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n",
	}
	tt := newImage(t, clean)
	if err := tt.Symlink("/dev/null", "/etc/ssh/sshd_config.d/50-masked.conf"); err != nil {
		t.Fatal(err)
	}
	targettest.Put(t, tt, "/dev/null/x", "", 0o600) // something that is no regular file
	if ls, err := Leaks(tt); len(ls) > 0 || err != nil {
		t.Errorf("in a clean image: %v, %v", ls, err)
	}
	for _, test := range []struct{ name, text, kind string }{
		{target.PAMStateDir + "/alice", "x", Secret},
		{target.PAMStateDir + "/alice~Ab1", "x", Secret},
		{target.Ready + "/id/envelope.age", "x", Secret},
		{target.Receipts + "/id.json", "x", Secret},
		{target.Identity, "{}", Secret},
		{"/etc/ssh/ssh_host_rsa_key", "x", HostKey},
		{"/etc/ssh/ssh_host_rsa_key.pub", "x", HostKey},
		{"/etc/ssh/own/key", "x", HostKey},
		{"/etc/ssh/other_key", "x", HostKey},
		{"/root/.ssh/authorized_keys", "x", LoginKey},
		{"/root/.ssh/more", "x", LoginKey},
		{"/home/packer/.ssh/authorized_keys2", "x", LoginKey},
		{target.MachineID, "0123\n", MachineID},
		{"/var/lib/dbus/machine-id", "0123\n", MachineID},
		{"/var/lib/cloud/data/instance-id", "i-1\n", CloudInit},
		{"/var/lib/cloud/instances/i-1/user-data.txt", "x", CloudInit},
		{"/etc/sudoers.d/90-cloud-init-users", "builder ALL=(ALL) NOPASSWD:ALL\n", SudoRule},
		{"/etc/sudoers.d/50-list", "alice, \\\n  builder ALL=(ALL) NOPASSWD:ALL\n", SudoRule},
		{"/etc/sudoers", "root ALL=(ALL:ALL) ALL\nbuilder ALL=(ALL) NOPASSWD:ALL\n@includedir /etc/sudoers.d\n", SudoRule},
		{target.CloudDir + "/seed/nocloud/user-data", "#cloud-config\npassword: x\n", CloudSeed},
		{target.CloudDir + "/seed/nocloud-net/meta-data", "instance-id: i-1\n", CloudSeed},
		{"/root/.google_authenticator", "x", Secret},
		{"/home/alice/.google_authenticator", "x", Secret},
		{"/home/packer/.ssh/.google_authenticator~Xy", "x", Secret},
		{"/etc/ssh/keys/packer", "x", LoginKey},
		{"/etc/ssh/keys/builder", "x", LoginKey}, // an account that is gone
		{"/etc/ssh/uid-0.keys", "x", LoginKey},
		{"/home/packer/keys", "x", LoginKey},
		{target.Passwd, passwd + "builder:x:1002:1002::/home/builder:/bin/sh\n", Account},
		{"/etc/shadow", "builder:$y$j9T$x:1::::::\n", Password},
	} {
		files := map[string]string{}
		for k, v := range clean {
			files[k] = v
		}
		files[test.name] = test.text
		ls, err := Leaks(newImage(t, files))
		if err != nil || !slices.Equal(kinds(ls), []string{test.kind}) {
			t.Errorf("%s: %v, %v; want %s", test.name, ls, err, test.kind)
		}
		if err := Judge(ls); !errors.Is(err, ErrLeaks) || !strings.Contains(err.Error(), test.kind) {
			t.Errorf("%s: %v", test.name, err)
		}
		for i := range ls {
			ls[i].Deferred = true
		}
		if err := Judge(ls); err != nil {
			t.Errorf("%s, deferred: %v", test.name, err)
		}
	}
	layered := map[string]string{target.Passwd: passwd, target.CloudInstances + "/i-1/totp-instance.yaml": "token: x"}
	if ls, err := Leaks(newImage(t, layered)); err != nil || !slices.Equal(kinds(ls), []string{CloudInit, Secret}) {
		t.Errorf("a layer: %v, %v", ls, err)
	}
}

// userdel --force removes whatever an account's home is.
func TestHomeOfItsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for directories of others")
	}
	p := (&policy.Policy{Clean: policy.Clean{BuildUser: "packer"}}).WithDefaults()
	for _, test := range []struct {
		name, home, more string
		owner            int
		ok               bool
	}{
		{"its own", "/home/packer", "", 1000, true},
		{"root's", "/home/packer", "", 0, false},
		{"the root", "/", "", 1000, false},
		{"somebody else's, too", "/home/packer", "alice:x:1001:1001::/home/packer/:/bin/sh\n", 1000, false},
		{"above somebody else's", "/home/", "alice:x:1001:1001::/home/alice:/bin/sh\n", 1000, false},
		{"beside one that begins the same", "/home/packer", "alice:x:1001:1001::/home/packer2:/bin/sh\n", 1000, true},
		{"a link", "/lnk", "", 1000, false},
		{"not there", "/nonexistent", "", -1, true},
		{"none", "", "", -1, false},
	} {
		tt := newImage(t, map[string]string{
			target.Passwd: "root:x:0:0::/root:/bin/sh\npacker:x:1000:1000::" + test.home + ":/bin/sh\n" + test.more,
			"/home/x":     "",
		})
		if err := tt.Symlink("/home", "/lnk"); err != nil {
			t.Fatal(err)
		}
		if dir := filepath.Join(tt.Root(), test.home); test.owner >= 0 {
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chown(dir, test.owner, test.owner)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := newMark(tt, p, "")
		if (err == nil) != test.ok || test.ok && !m.Remove || !test.ok && !strings.Contains(err.Error(), fmt.Sprintf("%q", test.home)) {
			t.Errorf("%s: %+v, %v", test.name, m, err)
		}
	}
}

func TestMark(t *testing.T) {
	cloud := map[string]string{
		target.Passwd:                   passwd,
		"/etc/cloud/cloud.cfg":          "users:\n  - default\nsystem_info:\n  default_user:\n    name: debian\n",
		"/etc/cloud/cloud.cfg.d/09.cfg": "# nothing\n",
		"/etc/cloud/cloud.cfg.d/10.cfg": "system_info: {default_user: {name: alice}}\n",
		"/etc/cloud/cloud.cfg.d/11.cfg": "not: [yaml\n",
		"/etc/cloud/cloud.cfg.d/12.txt": "system_info: {default_user: {name: packer}}\n",
	}
	for _, test := range []struct {
		name, user, login string
		users             []policy.User
		want              mark
		err               bool
	}{
		{"the policy's", "packer", "bob", nil, mark{User: "packer", Sudo: true, Remove: true}, false},
		{"the login's", "", "packer", nil, mark{User: "packer"}, false},
		{"root's", "", "root", nil, mark{}, false},
		{"nobody's", "", "", nil, mark{}, false},
		{"no name of an account", "", "../x", nil, mark{}, false},
		{"cloud-init's", "alice", "", nil, mark{User: "alice", Sudo: true}, false},
		{"one of users", "packer", "", []policy.User{{Name: "packer"}}, mark{User: "packer", Sudo: true}, false},
		{"gone already", "nobody", "", nil, mark{}, false},
		{"root by another name", "toor", "", nil, mark{}, true},
	} {
		tt := newImage(t, cloud)
		p := (&policy.Policy{Users: test.users, Clean: policy.Clean{BuildUser: test.user}}).WithDefaults()
		got, err := newMark(tt, p, test.login)
		if got != test.want || (err != nil) != test.err {
			t.Errorf("%s: %+v, %v; want %+v", test.name, got, err, test.want)
		}
	}
	for _, text := range []string{"", "{", `{"user":"root"}`, `{"user":"../x"}`, `{"user":"-f"}`} {
		tt := newImage(t, map[string]string{target.CleanMark: text, target.Passwd: passwd})
		if _, err := readMark(tt); !errors.Is(err, errMark) {
			t.Errorf("%q: %v", text, err)
		}
		// At the first boot it goes, whatever it says, and what nobody has to decide is done.
		targettest.Put(t, tt, "/etc/ssh/ssh_host_rsa_key", "x", 0o600)
		if err := Finish(t.Context(), tt, io.Discard, true); !errors.Is(err, errMark) {
			t.Errorf("%q: %v", text, err)
		}
		if tt.Exists(target.CleanMark) || tt.Exists("/etc/ssh/ssh_host_rsa_key") {
			t.Errorf("%q: the mark or a host key is there", text)
		}
	}
}

// A member of an exempt group is named as an exempt user is: the account stays
// with its login keys, and whoever builds is told. Root is never named.
func TestExemptGroups(t *testing.T) {
	tt := newImage(t, map[string]string{
		target.Passwd:                       passwd + "robot:x:1003:2000::/home/robot:/bin/sh\n",
		target.Group:                        "deploy:x:2000:packer,root\nusers:x:100:alice\n",
		"/root/.ssh/authorized_keys":        "x",
		"/home/packer/.ssh/authorized_keys": "x",
		"/home/robot/.ssh/authorized_keys":  "x",
		"/home/alice/.ssh/authorized_keys":  "x",
		target.ImagePolicy:                  "version: 1\nsshd: {exempt_groups: [deploy]}\nclean: {build_user: packer}\n",
	})
	var log strings.Builder
	r, err := Run(t.Context(), tt, Options{Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`/home/packer/.ssh/authorized_keys (sshd.exempt_groups: "deploy")`, `/home/robot/.ssh/authorized_keys (sshd.exempt_groups: "deploy")`}
	if !slices.Equal(r.Kept, want) || strings.Count(log.String(), "WARNING: login keys stay") != 2 {
		t.Errorf("kept %q, said\n%s", r.Kept, log.String())
	}
	for name, stays := range map[string]bool{"root": false, "home/packer": true, "home/robot": true, "home/alice": false} {
		if got := tt.Exists("/" + name + "/.ssh/authorized_keys"); got != stays {
			t.Errorf("login keys of %s: %v", name, got)
		}
	}
	if users, err := tt.Users(); err != nil || !slices.ContainsFunc(users, func(u target.User) bool { return u.Name == "packer" }) {
		t.Errorf("users %v, %v", users, err)
	}
}

// Without a mark nothing happens, at any boot.
func TestFinishOnce(t *testing.T) {
	tt := newImage(t, map[string]string{target.Passwd: passwd, "/etc/ssh/ssh_host_rsa_key": "x", target.MachineID: "0123\n"})
	for _, boot := range []bool{true, false} {
		if err := Finish(t.Context(), tt, io.Discard, boot); err != nil || !tt.Exists("/etc/ssh/ssh_host_rsa_key") {
			t.Errorf("%v", err)
		}
	}
}

// What cloud-init has written for one machine goes where it writes it anew.
func TestRendered(t *testing.T) {
	const eni, netplan, networkd, link, nm, sshd = "/etc/network/interfaces.d/50-cloud-init", "/etc/netplan/50-cloud-init.yaml", "/etc/systemd/network/10-cloud-init-ens3.network",
		"/etc/systemd/network/10-cloud-init-ens3.link", "/etc/NetworkManager/system-connections/cloud-init-ens3.nmconnection", "/etc/ssh/sshd_config.d/50-cloud-init.conf"
	all := []string{eni, netplan, networkd, link, nm, sshd}
	others := []string{"/etc/network/interfaces.d/eth0", "/etc/netplan/01-netcfg.yaml", "/etc/systemd/network/10-wired.network", "/etc/ssh/sshd_config.d/60-x.conf"}
	for _, test := range []struct {
		name  string
		files map[string]string
		stay  []string
	}{
		{"cloud-init", map[string]string{target.CloudInit: "", target.CloudSettings: "network: {config: {version: 1}}\n"}, nil},
		{"no cloud-init", nil, all},
		{"switched off", map[string]string{target.CloudInit: "", target.CloudDisabled: ""}, all},
		{"may not", map[string]string{target.CloudInit: "", target.CloudSettings: "users: []\n", target.CloudSettingsDir + "/99-x.cfg": "network: {config: disabled}\n"}, []string{eni, netplan, networkd, link, nm}},
		{"by a file of another kind", map[string]string{target.CloudInit: "", target.CloudSettings: "network: disabled\n", target.CloudSettingsDir + "/README": "network: {config: disabled}\n"}, nil},
	} {
		tt := newImage(t, test.files)
		for _, name := range append(slices.Clone(all), others...) {
			targettest.Put(t, tt, name, "x", 0o600)
		}
		if err := (&cleaner{ctx: t.Context(), t: tt, log: io.Discard}).rendered(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		var stay []string
		for _, name := range all {
			if tt.Exists(name) {
				stay = append(stay, name)
			}
		}
		if !slices.Equal(stay, test.stay) {
			t.Errorf("%s: %q stay, want %q", test.name, stay, test.stay)
		}
		for _, name := range others {
			if !tt.Exists(name) {
				t.Errorf("%s: %s is gone", test.name, name)
			}
		}
	}
}

func TestRotated(t *testing.T) {
	for name, want := range map[string]bool{
		"auth.log": false, "auth.log.1": true, "dpkg.log.2.gz": true, "x.old": true, "lastlog": false, "postgresql-15": false, "a.": false, "boot.log-20260101": false,
	} {
		if got := rotated(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A running build is never left without its account: a clean that is locked out
// changes nothing.
func TestRunLocked(t *testing.T) {
	tt := newImage(t, map[string]string{target.Passwd: passwd, target.PAMStateDir + "/alice": "x"})
	if err := tt.Mkdir(target.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := tt.Lock(target.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := Run(t.Context(), tt, Options{}); !errors.Is(err, target.ErrLocked) || !tt.Exists(target.PAMStateDir+"/alice") {
		t.Errorf("%v", err)
	}
	if _, err := tt.Lstat(target.CleanMark); !errors.Is(err, fs.ErrNotExist) {
		t.Error("there is a mark")
	}
}

// A directory on which no disk is mounted stays as it is.
func TestRunOnNoSystem(t *testing.T) {
	tt := newImage(t, map[string]string{"/var/log/syslog": "x"})
	if _, err := Run(t.Context(), tt, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if b, err := tt.ReadFile("/var/log/syslog"); string(b) != "x" || tt.Exists(target.StateDir) {
		t.Errorf("%q, %v", b, err)
	}
}

// Only what clean removes later is deferred: a host key of the image's own is not.
func TestCoversHostKeys(t *testing.T) {
	for name, want := range map[string]bool{"/etc/ssh/ssh_host_rsa_key": true, "/etc/ssh/own/key": false} {
		if got := (mark{}).covers(Leak{Kind: HostKey, Path: name}); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Sources of login keys beside files are no leak, and are named.
func TestKeptKeySources(t *testing.T) {
	tt := newImage(t, map[string]string{
		target.Passwd:                     passwd,
		target.ImagePolicy:                "version: 1\n",
		"/etc/ssh/sshd_config":            "TrustedUserCAKeys /etc/ssh/ca.pub\n",
		"/etc/ssh/sshd_config.d/eic.conf": "AuthorizedKeysCommand /usr/bin/keys %u\n",
		"/etc/ssh/sshd_config.d/a.conf":   "Match User bob\nAuthorizedKeysCommand none\n",
	})
	var log strings.Builder
	p, err := imagePolicy(tt, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &cleaner{ctx: t.Context(), t: tt, log: &log, policy: p}
	got, err := c.kept()
	want := []string{"/etc/ssh/ca.pub (TrustedUserCAKeys)", "/usr/bin/keys (AuthorizedKeysCommand)"}
	if err != nil || !slices.Equal(got, want) || strings.Count(log.String(), "WARNING") != 2 {
		t.Errorf("%q, %v\n%s", got, err, log.String())
	}
	if leaks, err := Leaks(tt); err != nil || slices.Contains(kinds(leaks), LoginKey) {
		t.Errorf("%v, %v", leaks, err)
	}
}
