// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// A wayOut is a problem, made for real, and what the operator adds to the command that
// the agent names.
type wayOut struct {
	image string           // the image's policy; empty: that of the lab, with alice and bob
	state func(m *machine) // brings the problem about, before the boot
	boots bool             // there was a boot before the problem
	live  bool             // it comes up after the boot, so the console does not say it
	user  string           // whom the command is for, and who can log in then; empty: no login is tried
	human string           // a script for the part that no command can do
	skip  string           // the part of Fix that the lab cannot run (journalctl, reboot)
	wait  bool             // the command begins with waiting for the end of a rate limit
	text  string           // of the error that the command prints before the human part
}

const (
	denied = "version: 1\nissuer: Example\nenroll: listed\nchannels: [{type: file}]\n"
	closed = "version: 1\nissuer: Example\nchannels: [{type: file}]\n"
	small  = `mkdir /disk && mount -t tmpfs -o size=%s,nr_inodes=64,mode=0700 tmpfs /disk
cp -a /var/lib/google-authenticator/. /disk/ && mount --bind /disk /var/lib/google-authenticator
`
)

func sh(script string) func(*machine) {
	return func(m *machine) { m.must("sh", "-euc", script) }
}

// receipt makes the file channel's receipt of alice's envelope what another one would be.
func receipt(state string) func(*machine) {
	return func(m *machine) {
		m.must("sh", "-euc", `f=$(ls /var/lib/totp-agent/receipts/*.json | head -n 1)
for f in /var/lib/totp-agent/receipts/*.json; do
	if grep -q '"alice"' "$f"; then sed -i 's/"state": "[a-z]*"/"state": "`+state+`"/' "$f"; fi
done`)
	}
}

// waysOut has a row for each kind of problem that the agent can show.
func waysOut(alice *person) map[string]wayOut {
	const pam = "/var/lib/google-authenticator"
	return map[string]wayOut{
		// cloud-init is installed and has named no instance; the machine-id is not the one
		// that alice was enrolled under.
		enroll.CodeIdentityUnknown: {boots: true, user: "alice", skip: "reboot; if this text is still here: ", state: sh(newMachineID + "\n: >/usr/bin/cloud-init; mkdir -p /run/cloud-init")},
		enroll.CodeDiskFull: {boots: true, user: "alice", human: "rm " + pam + "/filler~",
			state: sh(fmt.Sprintf(small, "64k") + "cat /dev/zero >/disk/filler~ || :")},
		enroll.CodeDiskReadOnly: {boots: true, user: "alice", state: sh("mount --bind /var/lib /var/lib && mount -o remount,bind,ro /var/lib")},
		enroll.CodeFileAttributes: {boots: true, user: "alice", state: func(m *machine) {
			m.chattr()
			m.must("sh", "-euc", fmt.Sprintf(small, "32m")+"chattr +i /disk/alice /disk/bob")
		}},
		enroll.CodePolicyInvalid: {user: "alice", text: "image.yaml:", human: "mv /root/good.yaml /etc/totp-agent/image.yaml",
			state: sh("cp /etc/totp-agent/image.yaml /root/good.yaml; echo 'nonsense: yes' >>/etc/totp-agent/image.yaml")},
		enroll.CodeEnrollFailed: {user: "alice", text: "/var/lib/totp-agent", human: "rm -r /var/lib/totp-agent",
			state: sh("rm -rf /var/lib/totp-agent; echo x >/var/lib/totp-agent")},
		enroll.CodeLayerRefused: {image: denied, user: "alice",
			state: sh("mkdir -p /var/lib/cloud/instance; umask 077; echo 'version: 1\nfirewall: auto' >/var/lib/cloud/instance/totp-instance.yaml")},
		enroll.CodeNoRecipient: {image: closed, user: "alice"},
		enroll.CodeLoginKey:    {image: denied + "users: [{name: alice, recipients: [\"" + alice.key.Public + "\"]}]\n", user: "alice"},
		enroll.CodeCardLost: {boots: true, user: "alice",
			state: func(m *machine) {
				m.write("/etc/totp-agent/image.yaml", denied)
				m.must("sh", "-c", "rm -r /var/lib/totp-agent/outbox/ready/* /var/lib/totp-agent/receipts/* /var/lib/totp-agent/envelopes")
			}},
		enroll.CodeNoAccount:  {image: denied + "users: [{name: dora, recipients: [" + alice.recipient + "]}]\n", user: "dora"},
		enroll.CodeRootDenied: {image: denied + "sshd: {root_login: deny}\nusers: [{name: root, recipients: [" + alice.recipient + "]}]\n", user: "dora"},
		enroll.CodeUserName: {image: closed + "recipients_from: [authorized_keys]\n",
			state: sh("userdel -r bob; userdel -r carol; rm -r /root/.ssh; usermod -l Alice.B alice")},
		enroll.CodeCannotLogIn: {boots: true, user: "alice", human: "usermod -s /bin/bash alice; usermod -s /bin/bash bob",
			state: sh("usermod -s /usr/sbin/nologin alice; usermod -s /usr/sbin/nologin bob")},
		enroll.CodeNoUser: {image: closed, user: "dora", state: sh("userdel -r alice; userdel -r bob; userdel -r carol; rm -r /root/.ssh")},

		enroll.CodeStateMissing: {boots: true, live: true, user: "alice", state: sh("rm " + pam + "/alice")},
		enroll.CodeStateDamaged: {boots: true, live: true, user: "alice", state: sh("echo x >" + pam + "/alice")},
		enroll.CodeStateMode:    {boots: true, live: true, user: "alice", state: sh("chmod 0644 " + pam + "/alice; chown 1000 " + pam + "/bob")},
		enroll.CodeRateLimited: {boots: true, live: true, user: "alice", wait: true,
			skip: "wait until the time shown; if the tries continue: journalctl -t sshd -t sshd-session -g 'publickey for USER ' shows address and key; find its line with ssh-keygen -lf AUTHORIZED_KEYS and remove it; then run: ",
			state: func(m *machine) {
				server := m.serve(m.cards()["alice"])
				for range 3 {
					m.tryCode(server, "alice", "000000")
				}
			}},
		enroll.CodeDiskLow: {boots: true, live: true, human: "rm " + pam + "/filler~",
			state: sh(fmt.Sprintf(small, "32m") + "mount -o remount,nr_inodes=4096 /disk; head -c 20m /dev/zero >/disk/filler~")},
		enroll.CodeCardUnconfirmed: {boots: true, live: true, user: "alice", state: receipt("unconfirmed")},
		enroll.CodeCardTampered:    {boots: true, live: true, user: "alice", state: receipt("tampered")},
		enroll.CodeDeliveryFailed: {boots: true, live: true, human: "rm -r /var/lib/totp-agent/envelopes",
			state: func(m *machine) {
				m.must("sh", "-euc", "rm -r /var/lib/totp-agent/envelopes; echo x >/var/lib/totp-agent/envelopes")
				m.agent("reset", "alice") // it reports that the old envelope cannot be removed
				m.agent("deliver")        // it reports that envelopes is not a directory
			}},
	}
}

// TestWaysOut walks through everything that the agent can complain about: it brings the
// problem about, finds it on the console, in sshd's banner and in status, sees that the
// login is refused, runs the command that the text names, and sees the problem end.
func TestWaysOut(t *testing.T) {
	t.Parallel()
	first := newMachine(t)
	rows := waysOut(first.img.people["alice"])
	for _, k := range enroll.Kinds {
		row, ok := rows[k.Code]
		if !ok {
			t.Errorf("%s: no row shows that %q ends it", k.Code, k.Fix)
			continue
		}
		t.Run(k.Code, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.write("/dev/console", "") // the lab has none
			var old card.Card
			if row.image != "" {
				m.write("/etc/totp-agent/image.yaml", row.image)
			}
			if row.boots {
				old = m.firstBoot()["alice"]
			}
			if row.state != nil {
				row.state(m)
			}
			if !row.live {
				m.agent("enroll") // the boot
			}
			m.problem(k, row)
			server := m.server()
			if k.Notice {
				m.shown(k, server)
			}
			// This test has the lost card. A login that the shell ends uses the card up, and is
			// tried by TestNoOneCanLogIn.
			if row.boots && k.Notice && k.Code != enroll.CodeCardLost && k.Code != enroll.CodeCannotLogIn {
				if got := m.enters(server, old, login.NewCodes(old.Secret, nil)); got == login.In {
					t.Errorf("a login is %v: nothing is wrong", got)
				}
			}
			reader := m.endIt(k, row)
			if !row.live {
				m.gone(k, server)
			}
			var st status
			if m.statusInto(&st); slices.ContainsFunc(st.Problems, func(p enroll.Problem) bool {
				return p.Code == k.Code && (p.User == row.user || row.user == "" || p.User == "") && k.Code != enroll.CodeLayerRefused
			}) {
				t.Errorf("it has not ended: %+v", st.Problems)
			}
			if row.user == "" {
				return
			}
			m.ok("deliver")
			c := m.liveCard(reader, row.user)
			if got := m.enters(server, c, login.NewCodes(c.Secret, c.BackupCodes)); got != login.In {
				t.Errorf("%s is %v after the command\n%s", row.user, got, m.Syslog())
			}
			// A clone that is adopted must not let the original's codes in.
			if k.Code == enroll.CodeIdentityUnknown {
				if got := m.enters(server, old, login.NewCodes(old.Secret, old.BackupCodes)); got == login.In {
					t.Error("the secret of the unknown machine is live")
				}
			}
		})
	}
}

// problem checks what status says, in text and JSON.
func (m *machine) problem(k enroll.Kind, row wayOut) {
	m.t.Helper()
	var st status
	m.statusInto(&st)
	i := slices.IndexFunc(st.Problems, func(p enroll.Problem) bool {
		return p.Code == k.Code && (p.User == "" || row.user == "" || p.User == row.user || row.user == "dora")
	})
	if i < 0 {
		m.t.Fatalf("problems %+v, want %s", st.Problems, k.Code)
	}
	p := st.Problems[i]
	if k.Notice != (st.NoticeCode == k.Code) {
		m.t.Errorf("notice %q", st.NoticeCode)
	}
	if s := m.agent("status"); s.code != 1 || !strings.Contains(s.out, "problem: "+k.Code+": ") || !strings.Contains(s.out, "to end it: "+p.Fix+"\n") {
		m.t.Errorf("status: exit %d\n%s", s.code, s.out)
	}
}

// TestWaysOutNeedAKey: a new card alone lets no user in. The reset of a user without an SSH
// key says so, and sshd's banner names the problem until the key is there.
func TestWaysOutNeedAKey(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/etc/totp-agent/image.yaml", closed)
	m.must("sh", "-euc", "userdel -r alice; userdel -r bob; userdel -r carol; rm -r /root/.ssh; useradd -m -s /bin/bash dora")
	m.agent("enroll")
	alice := m.img.people["alice"]
	s := m.agent("reset", "--recipient", alice.recipient, "dora")
	if s.code != 0 || !strings.Contains(s.err, "reset: dora: the card is made, but the user cannot log in yet: /home/dora/.ssh/authorized_keys: ") {
		t.Errorf("reset: exit %d\n%s", s.code, s.err)
	}
	cannot := enroll.Kinds[slices.IndexFunc(enroll.Kinds, func(k enroll.Kind) bool { return k.Code == enroll.CodeCannotLogIn })]
	server := m.server()
	if got := m.banner(server); !strings.Contains(strings.ReplaceAll(got, "\r", ""), cannot.Text()) {
		t.Errorf("the banner says %q", got)
	}
	if st := m.status(); st.NoticeCode != enroll.CodeCannotLogIn {
		t.Errorf("notice %q", st.NoticeCode)
	}
	if err := m.AddUser(t.Context(), rootfs.User{Name: "dora", Keys: []string{alice.key.Public}}); err != nil {
		t.Fatal(err)
	}
	m.ok("enroll")
	m.gone(cannot, server)
}

// banner is what a stranger sees.
func (m *machine) banner(s login.Server) string {
	r := login.Go{}.Login(m.t.Context(), s, login.Try{User: "bob", Key: m.img.people["bob"].key, Methods: []string{login.PublicKey}})
	return r.Banner
}

func (m *machine) shown(k enroll.Kind, s login.Server) {
	m.t.Helper()
	if got := m.must("cat", "/dev/console"); !strings.Contains(got, strings.ReplaceAll(k.Text(), "\n", "\r\n")) {
		m.t.Errorf("the console says %q", got)
	}
	if got := m.banner(s); !strings.Contains(strings.ReplaceAll(got, "\r", ""), k.Text()) {
		m.t.Errorf("the banner says %q", got)
	}
}

func (m *machine) gone(k enroll.Kind, s login.Server) {
	m.t.Helper()
	if st := m.status(); st.Notice != "" {
		m.t.Errorf("the notice is still %q", st.Notice)
	}
	if got := m.banner(s); strings.Contains(got, "totp-agent: ") {
		m.t.Errorf("the banner still says %q", got)
	}
}

// endIt runs the command of a problem, as it is written there, and returns who reads the
// new card.
func (m *machine) endIt(k enroll.Kind, row wayOut) *person {
	m.t.Helper()
	user, reader := row.user, m.img.people["alice"]
	if !strings.HasPrefix(k.Fix, row.skip) {
		m.t.Fatalf("%q does not begin with %q", k.Fix, row.skip)
	}
	fix := strings.TrimPrefix(k.Fix, row.skip)
	if row.wait {
		m.waitForLimit(user)
	}
	if i := strings.Index(fix, " ("); i >= 0 {
		fix = fix[:i]
	}
	if user == "" {
		user = "alice"
	}
	account := user
	if k.Code == enroll.CodeUserName {
		account = "Alice.B"
	}
	script := strings.NewReplacer("; then run: ", "\n", "; ", "\n", "delete files", row.human, "NEWNAME", "dora", "USER", account, "age1...", reader.recipient).Replace(fix)
	if row.text != "" {
		s := run(m.t, m.Command(m.t.Context(), "sh", "-euc", script))
		if s.code == 0 || !strings.Contains(s.err, row.text) {
			m.t.Errorf("%s: exit %d, %s; want the reason with %q", script, s.code, s.err, row.text)
		}
	}
	if row.human != "" && !strings.Contains(script, row.human) {
		m.must("sh", "-euc", row.human)
	}
	lines := strings.Split(script, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "put the user's public SSH key") {
			img := *m.img // the image is shared by all tests
			img.people = maps.Clone(img.people)
			img.people["dora"] = img.people["alice"]
			m.img = &img
			if err := m.AddUser(m.t.Context(), rootfs.User{Name: user, Keys: []string{m.img.people["alice"].key.Public}}); err != nil {
				m.t.Fatal(err)
			}
			continue
		}
		s := run(m.t, m.Command(m.t.Context(), "sh", "-euc", line))
		if s.code != 0 && !strings.HasPrefix(line, "df ") {
			m.t.Fatalf("%s: exit %d\n%s", line, s.code, s.err)
		}
		m.t.Logf("%d: %s\n%s", i+1, line, s.err)
	}
	return reader
}

// waitForLimit waits until the time that status shows.
func (m *machine) waitForLimit(user string) {
	m.t.Helper()
	var st enroll.Status
	m.statusInto(&st)
	for _, u := range st.Users {
		if u.Name == user && u.RateLimit != nil {
			time.Sleep(time.Until(u.RateLimit.Until) + time.Second)
		}
	}
}

// liveCard opens the envelope of a user's live secret.
func (m *machine) liveCard(reader *person, user string) card.Card {
	m.t.Helper()
	s, err := otp.ParseState([]byte(m.must("cat", pamStates+"/"+user)))
	if err != nil {
		m.t.Fatal(err)
	}
	armored := m.must("cat", envelopes+"/"+user+"."+s.Mark.ID+".age")
	identity, err := os.ReadFile(reader.identity)
	if err != nil {
		m.t.Fatal(err)
	}
	ids, err := age.ParseIdentities(strings.NewReader(string(identity)))
	if err != nil {
		m.t.Fatal(err)
	}
	sealed, err := seal.Dearmor([]byte(armored))
	if err != nil {
		m.t.Fatal(err)
	}
	text, err := seal.Open(sealed, ids...)
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := card.Parse(text)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	cmd := m.Command(m.t.Context(), "sh", "-euc", `cat >"$0"`, name)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// tryCode answers the prompt with a code.
func (m *machine) tryCode(s login.Server, user, code string) login.Outcome {
	m.t.Helper()
	r := login.Go{}.Login(m.t.Context(), s, login.Try{User: user, Key: m.img.people[user].key,
		Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{code}})
	if r.Outcome == login.Failed {
		m.t.Fatal(r)
	}
	return r.Outcome
}

// chattr installs this program of e2fsprogs, which every Debian has and the lab's root
// does not.
func (m *machine) chattr() {
	m.t.Helper()
	program, err := exec.LookPath("chattr")
	if err != nil {
		m.t.Skip(err)
	}
	libs, err := exec.CommandContext(m.t.Context(), "ldd", program).Output()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, name := range append(strings.Fields(string(libs)), program) {
		name = strings.Replace(name, "/lib/", "/usr/lib/", 1)
		to := m.Path(strings.Replace(name, "/usr/usr/", "/usr/", 1))
		if !strings.HasPrefix(name, "/usr/") {
			continue
		}
		if _, err := os.Stat(to); errors.Is(err, os.ErrNotExist) {
			if err := copyFile(to, strings.Replace(name, "/usr/usr/", "/usr/", 1), 0o755); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}
