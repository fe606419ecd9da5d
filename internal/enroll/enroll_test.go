// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const (
	testIdentity  = "AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU"
	testRecipient = "age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm"
	hostKeyLine   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1Cw1PWVzMvJPZSBT9h6n3YzUhPWn4rHFQ1m6iKZQ9N"
)

// A machine is a folder that plays a machine.
type machine struct {
	*testing.T
	t   *target.Target
	log bytes.Buffer
	con bytes.Buffer
}

// newMachine is an instance of a baked image: two people, one instance-id.
func newMachine(t *testing.T) *machine {
	tt, _ := targettest.New(t)
	m := &machine{T: t, t: tt}
	m.put(target.Passwd, "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\n"+
		"alice:x:1000:1000::/home/alice:/bin/bash\nbob:x:1001:1001::/home/bob:\nnobody:x:65534:65534::/:/usr/sbin/nologin\n")
	m.put(target.HostnameFile, "web-1\n")
	m.put("/etc/ssh/ssh_host_ed25519_key.pub", hostKeyLine+" root@web-1\n")
	m.put(target.MachineID, "0123456789abcdef0123456789abcdef\n")
	m.put(target.DMIProductUUID, "3f2504e0-4f89-11d3-9a0c-0305e82c3301\n")
	m.put(target.ImagePolicy, "version: 1\nissuer: Example Hosting\n")
	m.put(target.CloudInit, "")
	m.instance("i-1")
	m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n")
	return m
}

func (m *machine) put(name, content string) { targettest.Put(m.T, m.t, name, content, 0o600) }

// instance boots the machine under an instance-id, as cloud-init does.
func (m *machine) instance(id string) {
	m.put(target.CloudRunInstanceID, id+"\n")
	m.put(target.CloudDataInstanceID, id+"\n")
	id = strings.ReplaceAll(id, "/", "_")
	dir := filepath.Join(m.t.Root(), target.CloudInstances, id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.Fatal(err)
	}
	link := filepath.Join(m.t.Root(), target.CloudInstance)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Fatal(err)
	}
	if err := os.Symlink(target.CloudInstances+"/"+id, link); err != nil {
		m.Fatal(err)
	}
	m.put(target.CloudInstances+"/"+id+"/datasource", "DataSourceNoCloud: DataSourceNoCloud [seed=/dev/sr0]\n")
}

// layer writes the user-data's policy of the present instance.
func (m *machine) layer(yaml string) {
	id := strings.TrimSpace(m.read(target.CloudDataInstanceID))
	m.put(target.CloudInstances+"/"+id+"/totp-instance.yaml", yaml)
}

func (m *machine) read(name string) string {
	m.Helper()
	b, err := m.t.ReadFile(name)
	if err != nil {
		m.Fatal(err)
	}
	return string(b)
}

func (m *machine) options() Options {
	m.log.Reset()
	m.con.Reset()
	return Options{Agent: "test", Log: &m.log, Console: &m.con}
}

// run is a boot. The error is returned for tests that expect one.
func (m *machine) run() (*Status, error) {
	m.Helper()
	live(m.T)
	return Run(context.Background(), m.t, m.options())
}

func (m *machine) mustRun() *Status {
	m.Helper()
	st, err := m.run()
	if err != nil {
		m.Fatalf("%v\n%s", err, m.log.String())
	}
	return st
}

// live makes folders count as running machines for one test.
func live(t *testing.T) {
	isLive = func(*target.Target) bool { return true }
	t.Cleanup(func() { isLive = (*target.Target).Live })
}

// enrolled checks that a user has one enrollment, whole: state file and
// envelope are of one ID, and the card opens to the very secret and backup
// codes of the state file.
func (m *machine) enrolled(user string) (otp.State, card.Card) {
	m.Helper()
	state, err := readState(m.t, user)
	if err != nil {
		m.Fatal(err)
	}
	box := deliver.OpenOutbox(m.t)
	if staged, err := box.Staged(); err != nil || len(staged) > 0 {
		m.Errorf("staged: %v, %v; want none", staged, err)
	}
	ready, err := box.Ready()
	if err != nil {
		m.Fatal(err)
	}
	n := 0
	for _, r := range ready {
		if r.User == user {
			n++
		}
	}
	if n != 1 {
		m.Errorf("%d envelopes are ready for %s, want 1", n, user)
	}
	sealed, err := box.Envelope(state.Mark.ID)
	if err != nil {
		m.Fatal(err)
	}
	c := m.open(sealed)
	if c.Secret != state.Secret || !slices.Equal(c.BackupCodes, state.BackupCodes) || c.ID != state.Mark.ID || c.Generation != state.Mark.Generation {
		m.Errorf("card %s generation %d does not match the state file (%+v)", c.ID, c.Generation, state.Mark)
	}
	return state, c
}

// open opens an envelope to testRecipient.
func (m *machine) open(sealed []byte) card.Card {
	m.Helper()
	id, err := age.ParseX25519Identity(testIdentity)
	if err != nil {
		m.Fatal(err)
	}
	text, err := seal.Open(sealed, id)
	if err != nil {
		m.Fatal(err)
	}
	c, err := card.Parse(text)
	if err != nil {
		m.Fatal(err)
	}
	return c
}

// closed checks that the user has no state file that PAM would find.
func (m *machine) closed(user string) {
	m.Helper()
	if _, err := m.t.Lstat(stateFile(user)); !errors.Is(err, fs.ErrNotExist) {
		m.Errorf("%s: %v, want no such file", stateFile(user), err)
	}
}

func user(st *Status, name string) UserStatus {
	for _, u := range st.Users {
		if u.Name == name {
			return u
		}
	}
	return UserStatus{Why: "not in the status"}
}

func TestFirstBoot(t *testing.T) {
	m := newMachine(t)
	st := m.mustRun()
	state, c := m.enrolled("alice")
	m.closed("bob")
	m.closed("root")

	if u := user(st, "alice"); !u.Enrolled || u.ID != state.Mark.ID || u.Generation != 1 {
		t.Errorf("status of alice: %+v", u)
	}
	if u := user(st, "bob"); u.Enrolled || u.Why != ErrNoRecipient.Error() {
		t.Errorf("status of bob: %+v", u)
	}
	if u := user(st, "root"); u.Why != "not in the status" {
		t.Errorf("root without login keys is in the status: %+v", u)
	}
	info, err := m.t.Lstat(stateFile("alice"))
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode %v, %v; want 0400", info.Mode(), err)
	}
	if state.RateLimit != otp.Standard || state.Window != 3 || len(state.BackupCodes) != 8 {
		t.Errorf("state: %+v, window %d, %d backup codes", state.RateLimit, state.Window, len(state.BackupCodes))
	}
	if c.User != "alice" || c.Hostname != "web-1" || c.InstanceID != "i-1" || c.Issuer != "Example Hosting" || c.Token != "" ||
		len(c.HostKeys) != 1 || len(c.Recipients) != 1 || c.Agent != "test" {
		t.Errorf("card: user %q host %q instance %q issuer %q keys %q recipients %q agent %q", c.User, c.Hostname, c.InstanceID, c.Issuer, c.HostKeys, c.Recipients, c.Agent)
	}
	if st.Notice != "" || m.t.Exists(target.NoticeConf) {
		t.Errorf("there is a notice: %q", st.Notice)
	}
	if found := m.search(state.Secret); !slices.Equal(found, []string{stateFile("alice")}) {
		t.Errorf("the secret is in %q", found)
	}
	if strings.Contains(m.log.String()+m.con.String(), state.Secret) {
		t.Error("the secret is in the log")
	}
}

// search names the guest's files that hold a text.
func (m *machine) search(needle string) (found []string) {
	m.Helper()
	err := fs.WalkDir(os.DirFS(m.t.Root()), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(m.t.Root(), p))
		if bytes.Contains(b, []byte(needle)) {
			found = append(found, "/"+p)
		}
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	return found
}

// tree is every durable file with its content and time.
func (m *machine) tree() map[string]string {
	m.Helper()
	tree := map[string]string{}
	err := fs.WalkDir(os.DirFS(m.t.Root()), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix("/"+p, target.RunDir) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var b []byte
		if d.Type().IsRegular() {
			b, err = os.ReadFile(filepath.Join(m.t.Root(), p))
		}
		tree[p] = fmt.Sprint(info.Mode(), info.ModTime(), string(b))
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	return tree
}

func TestSecondRunChangesNothing(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	before := m.tree()
	st := m.mustRun()
	after := m.tree()
	for p, v := range after {
		if before[p] != v {
			t.Errorf("%s was changed", p)
		}
		delete(before, p)
	}
	for p := range before {
		t.Errorf("%s was removed", p)
	}
	if u := user(st, "alice"); !u.Enrolled || u.Why != "" {
		t.Errorf("status of alice: %+v", u)
	}
}

func TestWhoIsEnrolled(t *testing.T) {
	loginKey := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	_, pq, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		image, layer string
		passwd       string            // empty: alice and bob
		keys         map[string]string // authorized_keys by file
		want         map[string]error  // by user; nil: enrolled
	}{
		"auto": {
			image: "version: 1\nissuer: I\nusers: [{name: bob, recipients: [" + testRecipient + "]}]\n",
			layer: "version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n",
			want:  map[string]error{"alice": nil, "bob": nil},
		},
		"auto leaves accounts of the system alone, with a shell or not": {
			passwd: "root:x:0:0:root:/root:/bin/bash\nbackup:x:105:105::/home/alice:/bin/bash\npostgres:x:999:999::/home/alice:/bin/sh\n" +
				"alice:x:1000:1000::/home/alice:/bin/bash\nmail:x:1001:1001::/home/bob:/usr/sbin/nologin\nnobody:x:65534:65534::/home/alice:/bin/sh\n",
			keys: map[string]string{"/home/alice/.ssh/authorized_keys": loginKey + "\n"},
			want: map[string]error{"alice": nil},
		},
		"listed, of the system": {
			passwd: "root:x:0:0:root:/root:/bin/bash\nbackup:x:105:105::/home/backup:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n",
			layer:  "version: 1\nusers: [{name: backup, recipients: [" + testRecipient + "]}]\n",
			want:   map[string]error{"backup": nil, "alice": ErrNoRecipient},
		},
		"listed": {
			image: "version: 1\nissuer: I\nenroll: listed\n",
			layer: "version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n",
			want:  map[string]error{"alice": nil},
		},
		"no account": {
			layer: "version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}, {name: carol, recipients: [" + testRecipient + "]}]\n",
			want:  map[string]error{"alice": nil, "carol": ErrNoAccount, "bob": ErrNoRecipient},
		},
		"root with login keys": {
			layer: "version: 1\nusers: [{name: root, recipients: [" + testRecipient + "]}]\n",
			keys:  map[string]string{"/root/.ssh/authorized_keys": loginKey + "\n"},
			want:  map[string]error{"root": nil, "alice": ErrNoRecipient, "bob": ErrNoRecipient},
		},
		"root by cloud-init's disable_root is not asked for": {
			keys: map[string]string{"/root/.ssh/authorized_keys": `no-pty,command="echo 'Please login as the user \"debian\"'" ` + loginKey + "\n"},
			want: map[string]error{"alice": nil, "bob": ErrNoRecipient},
		},
		"root by root_login totp, without keys": {
			image: "version: 1\nissuer: I\nsshd: {root_login: totp}\nusers: [{name: root, recipients: [" + testRecipient + "]}]\n",
			want:  map[string]error{"root": nil, "alice": nil, "bob": ErrNoRecipient},
		},
		"root by root_login totp, with nothing to seal to": {
			image: "version: 1\nissuer: I\nsshd: {root_login: totp}\n",
			want:  map[string]error{"root": ErrNoRecipient, "alice": nil, "bob": ErrNoRecipient},
		},
		"root by root_login deny": {
			image: "version: 1\nissuer: I\nsshd: {root_login: deny}\n",
			keys:  map[string]string{"/root/.ssh/authorized_keys": loginKey + "\n"},
			want:  map[string]error{"alice": nil, "bob": ErrNoRecipient},
		},
		"root by root_login deny, named": {
			image: "version: 1\nissuer: I\nsshd: {root_login: deny}\n",
			layer: "version: 1\nusers: [{name: root, recipients: [" + testRecipient + "]}]\n",
			keys:  map[string]string{"/root/.ssh/authorized_keys": loginKey + "\n"},
			want:  map[string]error{"root": ErrRootDenied, "alice": ErrNoRecipient, "bob": ErrNoRecipient},
		},
		"exempt by group": {
			image: "version: 1\nissuer: I\nsshd: {exempt_groups: [deploy]}\n", // of bob
			want:  map[string]error{"alice": nil},
		},
		"exempt by name, and named": {
			image: "version: 1\nissuer: I\nsshd: {exempt_users: [alice, bob]}\n",
			want:  map[string]error{"alice": nil},
		},
		"exempt by network is enrolled": {
			image: "version: 1\nissuer: I\nsshd: {exempt_from: [10.0.0.0/8]}\n",
			want:  map[string]error{"alice": nil, "bob": ErrNoRecipient},
		},
		"login key named as recipient": {
			layer: "version: 1\nusers: [{name: alice, recipients: [\"" + loginKey + " me\"]}]\n",
			keys:  map[string]string{"/home/alice/.ssh/authorized_keys": loginKey + " alice@laptop\n"},
			want:  map[string]error{"alice": ErrLoginKey, "bob": ErrNoRecipient},
		},
		"login key named as escrow": {
			image: "version: 1\nissuer: I\nescrow_recipients: [\"" + loginKey + "\"]\n",
			layer: "version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n",
			keys:  map[string]string{"/home/alice/.ssh/authorized_keys": loginKey + "\n"},
			want:  map[string]error{"alice": ErrLoginKey, "bob": ErrNoRecipient},
		},
		"another SSH key as recipient": {
			layer: "version: 1\nusers: [{name: alice, recipients: [\"" + loginKey + "\"]}]\n",
			want:  map[string]error{"alice": nil, "bob": ErrNoRecipient},
		},
		"login keys by authorized_keys": {
			image: "version: 1\nissuer: I\nrecipients_from: [image, vendor, instance, authorized_keys]\n",
			layer: "version: 1\n",
			keys:  map[string]string{"/home/alice/.ssh/authorized_keys": loginKey + " alice@laptop\n"},
			want:  map[string]error{"alice": nil, "bob": ErrNoRecipient},
		},
		"login keys, and a layer with a post-quantum escrow": { // which is refused
			image: "version: 1\nissuer: I\nrecipients_from: [instance, authorized_keys]\n",
			layer: "version: 1\nescrow_recipients: [" + pq + "]\n",
			keys:  map[string]string{"/home/alice/.ssh/authorized_keys": loginKey + " alice@laptop\n"},
			want:  map[string]error{"alice": nil, "bob": ErrNoRecipient},
		},
		"escrow alone enrolls nobody": {
			image: "version: 1\nissuer: I\nescrow_recipients: [" + testRecipient + "]\n",
			layer: "version: 1\n",
			want:  map[string]error{"alice": ErrNoRecipient, "bob": ErrNoRecipient},
		},
		"refused layer": {
			image: "version: 1\nissuer: I\nusers: [{name: bob, recipients: [" + testRecipient + "]}]\n",
			layer: "version: 1\nrecipients_from: [instance]\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n",
			want:  map[string]error{"alice": ErrNoRecipient, "bob": nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.put(target.Group, "alice:x:1000:\nbob:x:1001:\ndeploy:x:2000:bob\n")
			if tt.passwd != "" {
				m.put(target.Passwd, tt.passwd)
			}
			if tt.image != "" {
				m.put(target.ImagePolicy, tt.image)
			}
			if tt.layer != "" {
				m.layer(tt.layer)
			}
			for f, text := range tt.keys {
				m.put(f, text)
				chownHome(t, m, f)
			}
			st := m.mustRun()
			got := map[string]string{}
			for _, u := range st.Users {
				got[u.Name] = u.Why
				if u.Enrolled != m.t.Exists(stateFile(u.Name)) {
					t.Errorf("%s: enrolled %v, but the state file says otherwise", u.Name, u.Enrolled)
				}
			}
			for name, want := range tt.want {
				why, ok := got[name]
				delete(got, name)
				if !ok {
					t.Errorf("%s is not in the status", name)
				} else if want == nil && why != "" || want != nil && !strings.Contains(why, want.Error()) {
					t.Errorf("%s: %q, want %v", name, why, want)
				}
			}
			if len(got) > 0 {
				t.Errorf("unexpected: %v", got)
			}
		})
	}
}

// chownHome gives a home directory's files to their account, since foreign
// ones do not count.
func chownHome(t *testing.T, m *machine, file string) {
	ids := map[string]int{"/home/alice": 1000, "/home/bob": 1001, "/root": 0}
	for home, id := range ids {
		if strings.HasPrefix(file, home+"/") && os.Geteuid() == 0 {
			err := filepath.WalkDir(filepath.Join(m.t.Root(), home), func(p string, _ fs.DirEntry, err error) error {
				return errors.Join(err, os.Lchown(p, id, id))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestNobody(t *testing.T) {
	m := newMachine(t)
	m.layer("version: 1\n")
	st := m.mustRun()
	if st.Notice == "" || m.read(target.Notice) != st.Notice || m.read(target.NoticeConf) != "Banner "+target.Notice+"\n" {
		t.Errorf("notice %q", st.Notice)
	}
	if !strings.Contains(m.con.String(), strings.TrimSpace(strings.Split(st.Notice, "\n")[0])) {
		t.Errorf("console: %q", m.con.String())
	}
	for _, secret := range []string{"alice", "bob"} {
		if strings.Contains(st.Notice, secret) {
			t.Errorf("the notice names %q", secret)
		}
	}
	// Where somebody logs in with the key alone, by the policy, it would be wrong.
	image := m.read(target.ImagePolicy)
	const file = "/home/bob/.ssh/authorized_keys"
	m.put(target.ImagePolicy, image+"sshd: {exempt_users: [bob]}\n")
	if st := m.mustRun(); st.Notice == "" {
		t.Error("no notice although bob has no key")
	}
	m.put(file, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n")
	chownHome(t, m, file)
	if st := m.mustRun(); st.Notice != "" || m.t.Exists(target.NoticeConf) {
		t.Errorf("the notice is there although bob is exempt: %q", st.Notice)
	}
	m.put(target.ImagePolicy, image)
	if st := m.mustRun(); st.Notice == "" {
		t.Error("no notice although nobody is exempt any more")
	}
	// A recipient arrives: the notice goes.
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	if st := m.mustRun(); st.Notice != "" || m.t.Exists(target.Notice) || m.t.Exists(target.NoticeConf) {
		t.Errorf("the notice is still there: %q", st.Notice)
	}
}

// Whoever could log in and is left out is in the status.
func TestOddName(t *testing.T) {
	m := newMachine(t)
	m.put(target.Passwd, m.read(target.Passwd)+"Dave:x:1002:1002::/home/dave:/bin/bash\n")
	if u := user(m.mustRun(), "Dave"); u.Enrolled || !strings.Contains(u.Why, policy.ErrUserName.Error()) {
		t.Errorf("status %+v", u)
	}
}

// TestNameThatIsAPath: the name of an account leads to no other file, and the reason why it
// is not enrolled is the name.
func TestNameThatIsAPath(t *testing.T) {
	for _, name := range []string{"..", ".", "../totp-agent", "../google-authenticator/alice", "alice/..", "a/b", "x/../alice", "./alice"} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.put(target.Passwd, m.read(target.Passwd)+name+":x:1002:1002::/home/dave:/bin/bash\n")
			m.mustRun()
			alice, _ := m.enrolled("alice")
			check := func(st *Status) {
				t.Helper()
				if u := user(st, name); u.Enrolled || u.Code != CodeUserName || u.ID != "" {
					t.Errorf("status %+v", u)
				}
			}
			check(m.mustRun())
			if strings.Contains(m.log.String(), "enrolling anew") || strings.Contains(m.log.String(), "not a regular file") {
				t.Errorf("log:\n%s", m.log.String())
			}
			st, err := ReadStatus(t.Context(), m.t)
			if err != nil {
				t.Fatal(err)
			}
			check(st)
			if _, err := m.reset(name, testRecipient); !errors.Is(err, policy.ErrUserName) {
				t.Errorf("reset: %v, want %v", err, policy.ErrUserName)
			}
			if now, _ := m.enrolled("alice"); now.Secret != alice.Secret {
				t.Error("alice's secret was replaced")
			}
		})
	}
}

func TestToken(t *testing.T) {
	m := newMachine(t)
	m.layer("version: 1\ntoken: AAECAwQFBgcICQoLDA0ODw\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	m.mustRun()
	_, c := m.enrolled("alice")
	token := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	if want := card.TokenMAC(token, "alice"); c.Token != want || want == card.TokenMAC(token, "bob") {
		t.Errorf("token %q, want %q", c.Token, want)
	}
	if found := m.search(c.Token); len(found) > 0 {
		t.Errorf("the token's MAC is in %q", found)
	}
}

// TestStateMode: the PAM module refuses a state file that other users could open or own, so
// the status says so, and the next run makes it right and keeps the secret.
func TestStateMode(t *testing.T) {
	for name, tt := range map[string]struct {
		mode os.FileMode
		uid  int
		bad  bool
	}{
		"0400": {0o400, 0, false}, "0600": {0o600, 0, false}, "0200": {0o200, 0, true}, "0000": {0, 0, true},
		"0644": {0o644, 0, true}, "0440": {0o440, 0, true}, "0404": {0o404, 0, true}, "0420": {0o420, 0, true}, "0500": {0o500, 0, true},
		"setgid": {0o400 | os.ModeSetgid, 0, true}, "sticky": {0o400 | os.ModeSticky, 0, true},
		"foreign": {0o400, 1000, true}, "foreign and 0644": {0o644, 1000, true},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.uid != 0 && os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			file := filepath.Join(m.t.Root(), stateFile("alice"))
			inode, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if tt.uid != 0 {
				if err := os.Chown(file, tt.uid, tt.uid); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(file, tt.mode); err != nil {
				t.Fatal(err)
			}
			st, err := ReadStatus(t.Context(), m.t)
			if err != nil {
				t.Fatal(err)
			}
			if u := user(st, "alice"); (u.Code == CodeStateMode) != tt.bad || u.Enrolled == tt.bad {
				t.Errorf("status %+v, want a problem: %v", u, tt.bad)
			}
			for range 2 {
				if st := m.mustRun(); !user(st, "alice").Enrolled || st.Notice != "" {
					t.Errorf("status of the run: %+v", user(st, "alice"))
				}
			}
			if now, _ := m.enrolled("alice"); now.Secret != old.Secret {
				t.Error("the secret was replaced")
			}
			if err := checkStateMode(m.t, "alice"); err != nil {
				t.Error(err)
			}
			if now, err := os.Stat(file); err != nil || os.SameFile(now, inode) == tt.bad {
				t.Errorf("the same file: %v, want %v; %v", !tt.bad, tt.bad, err)
			}
		})
	}
}

func TestDamagedState(t *testing.T) {
	for name, damage := range map[string]string{"empty": "", "no secret": "\" TOTP_AUTH\n", "cut": "ABCDEFGHIJ"} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			m.put(stateFile("alice"), damage)
			m.mustRun()
			if now, _ := m.enrolled("alice"); now.Secret == old.Secret {
				t.Error("the old secret is back")
			}
		})
	}
}

func TestLostEnvelope(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	old, _ := m.enrolled("alice")
	if err := m.t.RemoveAll(target.Ready + "/" + old.Mark.ID); err != nil {
		t.Fatal(err)
	}
	m.mustRun()
	now, c := m.enrolled("alice")
	if now.Secret == old.Secret || c.Generation != 2 || c.Supersedes != old.Mark.ID {
		t.Errorf("generation %d supersedes %q, want 2 and %q", c.Generation, c.Supersedes, old.Mark.ID)
	}
}

func TestHandMadeState(t *testing.T) {
	hand, err := otp.State{Secret: "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", RateLimit: otp.Standard, Window: 3}.Format()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("on a bound machine it stays", func(t *testing.T) {
		m := newMachine(t)
		m.mustRun()
		m.put(stateFile("bob"), string(hand))
		m.mustRun()
		if m.read(stateFile("bob")) != string(hand) {
			t.Error("it was changed")
		}
	})
	t.Run("in an image it goes", func(t *testing.T) {
		m := newMachine(t)
		m.put(stateFile("bob"), string(hand))
		m.mustRun()
		m.closed("bob")
	})
}

func TestAccountGone(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	m.put(target.Passwd, "root:x:0:0::/root:/bin/bash\n")
	m.mustRun()
	m.closed("alice")
	if ready, err := deliver.OpenOutbox(m.t).Ready(); err != nil || len(ready) > 0 {
		t.Errorf("ready: %v, %v; want none", ready, err)
	}
}

// TestPasswdCut cuts /etc/passwd at each byte, as a power cut or a full disk does: no
// account is taken for removed.
func TestPasswdCut(t *testing.T) {
	inMemory(t)
	m := newMachine(t)
	whole := m.read(target.Passwd)
	m.put(target.Shadow, "root:*:19000::::::\nalice:!:19000:0:99999:7:::\nbob:!:19000:0:99999:7:::\n")
	m.mustRun()
	old, _ := m.enrolled("alice")
	contents := []string{strings.Repeat("\x00", len(whole)), "\n", "# no account\n", whole[strings.Index(whole, "daemon"):]}
	for n := range len(whole) {
		contents = append(contents, whole[:n])
	}
	for _, passwd := range contents {
		m.put(target.Passwd, passwd)
		st, err := m.run()
		if now, err := readState(m.t, "alice"); err != nil || now.Secret != old.Secret {
			t.Fatalf("%q: %v: alice lost her secret", passwd, err)
		}
		if err != nil && !errors.Is(err, target.ErrPasswd) {
			t.Fatalf("%q: error %v, want %v", passwd, err, target.ErrPasswd)
		}
		if n := strings.Count(fmt.Sprint(st.Users), "{alice "); err == nil && n != 1 {
			t.Errorf("%q: alice is listed %d times", passwd, n)
		}
	}
	m.put(target.Passwd, whole)
	m.mustRun()
	if now, c := m.enrolled("alice"); now.Secret != old.Secret || c.Generation != 1 {
		t.Error("the restored file ended in another enrollment")
	}
	// userdel removes both lines.
	m.setAccount("")
	m.put(target.Shadow, "root:*:19000::::::\nalice2:!:19000:0:99999:7:::\n")
	m.mustRun()
	m.closed("alice")
}

func TestNotNamedAnyMore(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nissuer: I\nenroll: listed\n")
	m.mustRun()
	before, _ := m.enrolled("alice")
	m.layer("version: 1\n")
	st := m.mustRun()
	if now, _ := m.enrolled("alice"); now.Secret != before.Secret {
		t.Error("alice lost her secret")
	}
	if u := user(st, "alice"); !u.Enrolled || u.Why == "" {
		t.Errorf("status: %+v", u)
	}
}

func TestPolicyCutShort(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	m.put(target.ImagePolicy, "version: 1\nissuer: I\nusers: [{name: al")
	m.instance("i-2")
	st, err := m.run()
	var wrong policy.Errors
	if !IsPolicyError(err) || !errors.As(err, &wrong) || wrong[0].Line == 0 || wrong[0].File == "" {
		t.Errorf("error %v, want a policy error with file and line", err)
	}
	m.closed("alice") // a clone loses its original's secrets all the same
	if st.Error == "" || st.Notice == "" {
		t.Errorf("error %q, notice %q", st.Error, st.Notice)
	}
}

func TestTwoAtOnce(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	unlock, err := m.t.Lock(target.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	before := m.read(target.Status)
	for unit, patience := range map[string]time.Duration{"": handPatience, "0123": unitPatience} {
		t.Setenv("INVOCATION_ID", unit)
		for name, command := range map[string]func() error{
			"enroll": func() error { _, err := m.run(); return err },
			"reset":  func() error { _, err := m.reset("alice"); return err },
		} {
			synctest.Test(t, func(t *testing.T) {
				began, want := time.Now(), patience
				if name == "reset" {
					want = handPatience
				}
				if err := command(); !errors.Is(err, errAlreadyLocked) {
					t.Errorf("%s: error %v, want %v", name, err, errAlreadyLocked)
				}
				if waited := time.Since(began); waited != want {
					t.Errorf("%s: waited for %v, want %v", name, waited, want)
				}
			})
		}
	}
	if m.read(target.Status) != before || m.t.Exists(target.Notice) || m.con.Len() > 0 {
		t.Error("the one that came too late has said how things are")
	}
}

// A repair, a reset or another enrollment has the lock for a moment.
func TestWaitsForAnother(t *testing.T) {
	for name, command := range map[string]func(m *machine) error{
		"enroll": func(m *machine) error { _, err := m.run(); return err },
		"reset":  func(m *machine) error { _, err := m.reset("alice"); return err },
	} {
		m := newMachine(t)
		m.mustRun()
		synctest.Test(t, func(t *testing.T) {
			unlock, err := m.t.Lock(target.StateDir)
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(unitPatience/2, unlock)
			if err := command(m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// A boot that fails does not tell those who are enrolled that they are not.
func TestNoFalseNotice(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	m.put(target.ImagePolicy, "version: 1\nissuer: [\n")
	st, err := m.run()
	if !IsPolicyError(err) || st.Notice != "" || m.t.Exists(target.NoticeConf) {
		t.Errorf("error %v, notice %q", err, st.Notice)
	}
	m.enrolled("alice")
}

// Accounts of directory services are not in /etc/passwd.
func TestHandMadeStateOfADirectoryUser(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	hand, err := otp.State{Secret: "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", RateLimit: otp.Standard, Window: 3}.Format()
	if err != nil {
		t.Fatal(err)
	}
	m.put(stateFile("carol"), string(hand))
	st := m.mustRun()
	if u := user(st, "carol"); !u.Enrolled || m.read(stateFile("carol")) != string(hand) {
		t.Errorf("status %+v", u)
	}
}

func TestForeignLayer(t *testing.T) {
	for name, change := range map[string]func(file string) error{
		"others may write it": func(f string) error { return os.Chmod(f, 0o622) },
		"of somebody else":    func(f string) error { return os.Chown(f, 1000, 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && name == "of somebody else" {
				t.Skip("only root can give files away")
			}
			m := newMachine(t)
			if err := change(filepath.Join(m.t.Root(), target.CloudInstances, "i-1", "totp-instance.yaml")); err != nil {
				t.Fatal(err)
			}
			st := m.mustRun()
			m.closed("alice")
			if len(st.RefusedLayers) != 1 || st.Notice == "" {
				t.Errorf("refused %v, notice %q", st.RefusedLayers, st.Notice)
			}
		})
	}
}

// A machine that is named by its machine-id does not use what was written for
// an instance before.
func TestStaleLayer(t *testing.T) {
	m := newMachine(t)
	m.put(target.CloudRunDisabled, "")
	m.mustRun()
	m.closed("alice")
}

func TestTemporaryFileOfADeadLogin(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	fresh, old := stateFile("alice")+"~aaaaaa", stateFile("alice")+"~bbbbbb"
	m.put(fresh, "x")
	m.put(old, "x")
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(m.t.Root(), old), past, past); err != nil {
		t.Fatal(err)
	}
	m.mustRun()
	if !m.t.Exists(fresh) || m.t.Exists(old) {
		t.Error("want the fresh one kept and the old one removed")
	}
}

// The status tells of a live secret whose card is gone, and nobody to seal a
// new one to.
func TestCardLost(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	old, _ := m.enrolled("alice")
	m.layer("version: 1\n")
	if err := m.t.RemoveAll(target.Ready + "/" + old.Mark.ID); err != nil {
		t.Fatal(err)
	}
	m.mustRun()
	st, err := ReadStatus(context.Background(), m.t)
	if u := user(st, "alice"); err != nil || u.Enrolled || !strings.Contains(u.Why, errCardLost.Error()) {
		t.Errorf("status %+v, %v", u, err)
	}
}

func TestOddHostKey(t *testing.T) {
	m := newMachine(t)
	if err := os.Symlink("/nowhere", filepath.Join(m.t.Root(), "/etc/ssh/ssh_host_rsa_key.pub")); err != nil {
		t.Fatal(err)
	}
	m.mustRun()
	if _, c := m.enrolled("alice"); len(c.HostKeys) != 1 {
		t.Errorf("host keys %q", c.HostKeys)
	}
}

// The file channel's copies are of one enrollment, and go with it.
func TestCopiesOfEnvelopes(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	old, _ := m.enrolled("alice")
	copied := target.Envelopes + "/alice." + old.Mark.ID + ".age"
	m.put(copied, "x")
	if _, err := m.reset("alice"); err != nil {
		t.Fatal(err)
	}
	if m.t.Exists(copied) {
		t.Error("the dead card lies beside the new one")
	}
	m.put(copied, "x")
	m.instance("i-2")
	m.mustRun()
	if m.t.Exists(copied) {
		t.Error("the original's card is on the clone")
	}
}

func TestStateDirIsALink(t *testing.T) {
	for _, dir := range []string{target.StateDir, target.PAMStateDir} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			m := newMachine(t)
			elsewhere := filepath.Join(m.t.Root(), "elsewhere")
			if err := errors.Join(os.Mkdir(elsewhere, 0o700), os.MkdirAll(filepath.Join(m.t.Root(), "/var/lib"), 0o755),
				os.Symlink("/elsewhere", filepath.Join(m.t.Root(), dir))); err != nil {
				t.Fatal(err)
			}
			if _, err := m.run(); !errors.Is(err, target.ErrNotOurs) {
				t.Errorf("error %v, want %v", err, target.ErrNotOurs)
			}
			if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 {
				t.Errorf("%v, %v: something was written through the link", entries, err)
			}
		})
	}
}

func BenchmarkRun(b *testing.B) {
	for _, users := range []int{1, 11} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			isLive = func(*target.Target) bool { return true }
			defer func() { isLive = (*target.Target).Live }()
			for b.Loop() {
				b.StopTimer()
				t, _ := targettest.New(b)
				passwd, layer := "root:x:0:0:root:/root:/bin/bash\n", "version: 1\nusers:\n"
				for i := range users {
					passwd += fmt.Sprintf("user%d:x:%d:1000::/home/u:/bin/bash\n", i, 1000+i)
					layer += fmt.Sprintf("  - {name: user%d, recipients: [%s]}\n", i, testRecipient)
				}
				for f, s := range map[string]string{
					target.Passwd: passwd, target.HostnameFile: "web-1\n", target.MachineID: "0123456789abcdef0123456789abcdef\n",
					target.ImagePolicy: "version: 1\nissuer: I\n", target.InstancePolicy: layer,
				} {
					targettest.Put(b, t, f, s, 0o600)
				}
				b.StartTimer()
				st, err := Run(context.Background(), t, Options{Agent: "test"})
				if err != nil || len(st.Users) != users {
					b.Fatal(err, st)
				}
			}
		})
	}
}

// A power cut in the first boot leaves an empty file where cloud-init wrote the
// layer, and no later boot writes it again.
func TestLayerLostInAPowerCut(t *testing.T) {
	layer := "version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n"
	for name, tt := range map[string]struct {
		config string
		want   bool
	}{
		"plain":           {"#cloud-config\nwrite_files:\n- {path: /etc/motd, content: x}\n- {path: " + target.InstancePolicy + ", content: " + fmt.Sprintf("%q", layer) + "}\n", true},
		"base64":          {"write_files:\n- {path: " + target.InstancePolicy + ", encoding: b64, content: " + base64.StdEncoding.EncodeToString([]byte(layer)) + "}\n", true},
		"!!binary":        {"write_files:\n- {path: " + target.InstancePolicy + ", content: !!binary " + base64.StdEncoding.EncodeToString([]byte(layer)) + "}\n", true},
		"other file":      {"write_files:\n- {path: /etc/motd, content: x}\n", false},
		"no cloud-config": {"\t{", false},
		"none":            {"", false},
		"odd encoding":    {"write_files:\n- {path: " + target.InstancePolicy + ", encoding: rot13, content: x}\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.layer("")
			if tt.config != "" {
				m.put(target.CloudInstances+"/i-1/cloud-config.txt", tt.config)
			}
			st := m.mustRun()
			if tt.want {
				m.enrolled("alice")
				return
			}
			m.closed("alice")
			if len(st.RefusedLayers) != 1 {
				t.Errorf("refused: %v, want the instance layer", st.RefusedLayers)
			}
		})
	}
}

func FuzzWrittenFile(f *testing.F) {
	f.Add([]byte("write_files:\n- {path: " + target.InstancePolicy + ", content: x}\n"))
	f.Add([]byte("write_files:\n- {path: " + target.InstancePolicy + ", encoding: gz+b64, content: H4sIAAAAAAAAA6sAAIPcgJ4BAAAA}\n"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if text, err := writtenFile(doc, target.InstancePolicy); err != nil && text != nil {
			t.Errorf("text with an error: %q", text)
		}
	})
}

// What a boot need not read it does not: not the login keys of accounts that
// nobody logs in to, nor the groups where the policy exempts none. What cannot be
// read is said, so these would be.
func TestReadsWhatItNeeds(t *testing.T) {
	m := newMachine(t)
	m.put(target.Passwd, "root:x:0:0::/root:/bin/bash\ndaemon:x:1:1::"+target.HostnameFile+":/usr/sbin/nologin\nops:x:1002:1002::"+target.HostnameFile+":/bin/sh\nalice:x:1000:1000::/home/alice:/bin/bash\n")
	if err := m.t.Mkdir(target.Group, 0o755); err != nil {
		t.Fatal(err)
	}
	m.mustRun()
	log := m.log.String()
	if strings.Contains(log, "daemon") || strings.Contains(log, target.Group) {
		t.Errorf("reads what nobody needs:\n%s", log)
	}
	if !strings.Contains(log, "ops: ") {
		t.Errorf("says nothing of login keys that cannot be read:\n%s", log)
	}
	m.put(target.ImagePolicy, "version: 1\nissuer: I\nsshd: {exempt_groups: [deploy]}\n")
	m.mustRun()
	if n := strings.Count(m.log.String(), target.Group); n != 1 {
		t.Errorf("says %d times that groups cannot be read, want once:\n%s", n, m.log.String())
	}
}
