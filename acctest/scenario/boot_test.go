// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/report"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/scenario"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// TestSystems goes the whole way on the other systems that are proven, and then
// boots their instances as they should not be.
func TestSystems(t *testing.T) {
	if os.Getenv("TOTP_ACC") != "all" {
		t.Skip("set TOTP_ACC=all to build images of Debian 11 and 13 and boot them, as root on Debian")
	}
	t.Parallel()
	clock := newTimeServer(t)
	for _, s := range []struct {
		vm.System
		firewall      scenario.Firewall
		otherWayRound bool // of the states
	}{
		{vm.Debian11, scenario.Firewalld, false}, // which cannot be installed beside the cloud-init of Debian 13
		{vm.Debian13, scenario.UFW, true},
	} {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			cache, err := rootfs.CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(cache, 0o755); err != nil {
				t.Fatal(err)
			}
			res, err := scenario.Prove(t.Context(), scenario.Options{
				System: s.System, Firewall: &s.firewall, Module: filepath.Dir(cache), Cache: cache, Work: t.TempDir(), Report: report.New(t.Output()),
				PullPlug: true, // the image of Debian 12 is that of a machine which was shut down
			})
			if res.Instance != nil {
				t.Cleanup(res.Instance.Cut)
			}
			if err != nil {
				t.Fatal(err)
			}
			passed(t, res.Rows)
			if err := res.Lab.CheckImage(t.Context()); err == nil {
				t.Error("the image, which its first boot is to clean, has nothing to be cleaned of")
			}
			b := boots{res: res, states: spoiled(s.otherWayRound)}
			b.cleaned(t)
			t.Run(s.firewall.Name+" is live", func(t *testing.T) { b.firewall(t, clock) })
			b.begin(t)
			b.absent(t)
			if s.Name != vm.Debian11.Name { // whose boots are the shortest
				b.spoil(t, 0)
			}
			if err := res.Instance.PowerOff(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s.Name == vm.Debian11.Name {
				t.Run("a clone of which user-data name nobody is closed", b.closedClone)
				if !t.Run("the datasource cannot be reached", b.unreached) || !t.Run("it can again, after cloud-init clean", b.forgotten) {
					return
				}
			}
			b.run(t)
		})
	}
}

// state is one of an instance in which the agent does not work, or sshd is started
// another way. Each is made in the boot before its own, so that all of them cost
// one boot each.
type state struct {
	name, script string
	keyless      bool // cloud-init has no part in this boot, and there are no host keys
}

// The parts of states, as scripts. The first two put back what another part took.
const (
	mended = `
[ ! -e /root/totp-agent ] || mv -f /root/totp-agent /usr/local/sbin/totp-agent
[ ! -e /root/totp-agent.service ] || mv -f /root/totp-agent.service /etc/systemd/system/totp-agent.service`
	failing = mended + `
mv /usr/local/sbin/totp-agent /root/totp-agent
cp /bin/false /usr/local/sbin/totp-agent`
	masked = mended + `
mv /etc/systemd/system/totp-agent.service /root/totp-agent.service
ln -s /dev/null /etc/systemd/system/totp-agent.service`
	bySocket = `
systemctl disable --quiet ssh.service
systemctl unmask --quiet ssh.socket
systemctl enable --quiet ssh.socket`
	byService = `
systemctl disable --quiet ssh.socket
systemctl enable --quiet ssh.service`
	withoutKeys = `
touch /etc/cloud/cloud-init.disabled
printf '[Match]\nType=ether\n\n[Network]\nDHCP=yes\n' >/etc/systemd/network/50-own.network
rm /etc/ssh/ssh_host_*`
)

// spoiled are the states of an instance, one after the other. The other way round,
// the agent fails where it is masked elsewhere: of all systems together, each pair
// is booted, at no further boot.
func spoiled(otherWayRound bool) []state {
	first, second := state{script: bySocket}, state{script: byService + withoutKeys, keyless: true}
	how := map[bool]struct{ script, says string }{false: {failing, "the agent fails"}, true: {masked, "the agent is masked"}}
	first.script += how[otherWayRound].script
	first.name = "ssh.socket starts sshd, and " + how[otherWayRound].says
	second.script += how[!otherWayRound].script
	second.name = "ssh.service starts sshd, " + how[!otherWayRound].says + ", cloud-init is off, and there are no host keys"
	return []state{first, second}
}

// boots are boots of one instance in those states.
type boots struct {
	res      *scenario.Result
	stranger *scenario.Person
	password string // root's, for the console
	first    scenario.Sight
	states   []state
}

// cleaned looks whether the instance has anything of the build: gone with the
// shutdown of the build, or with the first boot of the image.
func (b *boots) cleaned(t *testing.T) {
	t.Helper()
	out, err := b.res.Instance.Sudo(t.Context(), b.card(), `id packer 2>&1 || true
ls /var/lib/totp-agent/clean.json /home/packer /etc/sudoers.d/*packer* 2>/dev/null || true
grep -c packer /etc/passwd /etc/shadow /etc/group || true
systemctl --no-pager is-failed totp-clean.service || true`)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("of the build: %q", out)
	if !strings.Contains(out, "no such user") || strings.Contains(out, "clean.json") || strings.Contains(out, "/home/packer") || strings.Contains(out, "sudoers.d") ||
		!strings.Contains(out, "/etc/passwd:0\n/etc/shadow:0\n/etc/group:0\n") || strings.Contains(out, "\nfailed") {
		t.Errorf("of the build there is %q", out)
	}
}

// begin looks at an instance that runs as it should.
func (b *boots) begin(t *testing.T) {
	t.Helper()
	b.cycles(t)
	var err error
	if b.stranger, b.password, err = b.res.Instance.Newcomer(t.Context(), b.card(), "dave"); err != nil {
		t.Fatal(err)
	}
	b.clock(t)
	b.cloud(t)
}

// cloud asks cloud-init how its boot has ended: nothing that user-data of ours say
// is an error to it, or makes the boot degraded.
func (b *boots) cloud(t *testing.T) {
	t.Helper()
	out, err := b.res.Instance.Sudo(t.Context(), b.card(), `timeout 240 cloud-init status --wait >/dev/null || true
code=0
cloud-init status --long || code=$?
echo "exit status $code"
systemctl show --property=Result totp-module.service
systemctl show --property=ExecMainStartTimestampMonotonic,ExecMainExitTimestampMonotonic totp-agent.service
echo look
sh `+scenario.LookProgram)
	if err != nil {
		t.Fatal(err)
	}
	out, look, _ := strings.Cut(out, "look\n")
	if b.first, err = scenario.ReadSight(look); err != nil {
		t.Fatal(err)
	}
	t.Logf("cloud-init: %q", out)
	if !strings.HasPrefix(out, "status: done\n") || !strings.Contains(out, "\nexit status 0\n") || strings.Contains(out, "degraded") {
		t.Errorf("cloud-init status: %q", out)
	}
	// The unit of cloud-init's module has had its turn, and found nothing to do.
	if !strings.Contains(out, "\nResult=exec-condition\n") {
		t.Errorf("totp-module.service: %q", out)
	}
	// How long sshd has waited is for a reader, who knows whether KVM was there.
	delay, err := unitTime(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("sshd has waited %s for totp-agent.service", delay)
}

// unitTime returns how long the main process of a unit has run, by the timestamps
// that systemctl shows, in microseconds.
func unitTime(shown string) (time.Duration, error) {
	at := func(which string) (time.Duration, error) {
		_, rest, _ := strings.Cut(shown, "ExecMain"+which+"TimestampMonotonic=")
		text, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil && n == 0 {
			err = errors.New("the unit has not run")
		}
		return time.Duration(n) * time.Microsecond, err
	}
	start, err := at("Start")
	exit, eerr := at("Exit")
	return exit - start, errors.Join(err, eerr)
}

// clock compares what the agent says of the clock with what systemd says: on an
// instance of a bake, an NTP client is enabled.
func (b *boots) clock(t *testing.T) {
	t.Helper()
	out, err := b.res.Instance.Sudo(t.Context(), b.card(), `systemctl is-enabled systemd-timesyncd
timedatectl show --property=NTPSynchronized --value
totp-agent status --json || :`)
	if err != nil {
		t.Fatal(err)
	}
	enabled, rest, _ := strings.Cut(out, "\n")
	synchronised, status, _ := strings.Cut(rest, "\n")
	var st struct{ Clock target.Clock }
	if err := json.Unmarshal([]byte(status), &st); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	t.Logf("NTP client %s, synchronised: %s; the agent: %s", enabled, synchronised, st.Clock)
	want := map[string]target.ClockState{"yes": target.ClockSynchronised, "no": target.ClockUnsynchronised}[synchronised]
	if enabled != "enabled" || want == "" || st.Clock.State != want {
		t.Errorf("the clock: %q", out)
	}
}

// run goes on with the instance when it has been shut down.
func (b *boots) run(t *testing.T) {
	for n, s := range b.states {
		t.Run(s.name, func(t *testing.T) {
			if s.keyless {
				b.withoutCloud(t)
			} else {
				boot(t, b.res.Instance)
			}
			rows, err := b.res.Instance.Closed(t.Context(), b.card(), b.stranger, b.password)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("\n%s", rows)
			passed(t, rows)
			b.cycles(t)
			if s.keyless {
				b.hostKeys(t)
			}
			if n+1 < len(b.states) {
				b.spoil(t, n+1)
			} else {
				b.clean(t)
			}
			if err := b.res.Instance.PowerOff(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n+1 < len(b.states) {
				return
			}
			if err := b.res.Instance.CheckDisk(t.Context()); err != nil {
				t.Errorf("an image of the instance: %v", err)
			}
		})
	}
}

// withoutCloud boots an instance that has lost its host keys, and makes the new ones
// those of the card: the agent would have, which does not work.
func (b *boots) withoutCloud(t *testing.T) {
	t.Helper()
	i := b.res.Instance
	t.Cleanup(i.Cut)
	if err := i.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.Machine.WaitGreeted(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys, err := i.ReadHostKeys(t.Context(), b.password)
	if err != nil {
		t.Fatal(err)
	}
	b.res.Cards[0].HostKeys = keys
}

// hostKeys looks whether those of an instance without cloud-init are the bake's
// unit's.
func (b *boots) hostKeys(t *testing.T) {
	t.Helper()
	out, err := b.res.Instance.Sudo(t.Context(), b.card(), `systemctl show --property=Result,ConditionResult,ExecMainStatus totp-hostkeys.service
ls /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_rsa_key
systemctl is-active ssh.service
journalctl --boot --no-pager --unit=cloud-init-local.service --unit=cloud-init.service --unit=cloud-init-main.service --output=cat --grep=Cloud-init || true`)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("host keys without cloud-init: %q", out)
	for _, want := range []string{"Result=success\n", "ConditionResult=yes\n", "ExecMainStatus=0\n", "rsa_key\nactive\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	if strings.Contains(out, "Cloud-init") {
		t.Errorf("cloud-init has run: %q", out)
	}
}

// clean has root make an image of an instance that has been in use: at the next
// shutdown the last of it goes.
func (b *boots) clean(t *testing.T) {
	t.Helper()
	shown, err := b.res.Instance.Machine.LogIn(t.Context(), b.password, strings.ReplaceAll(strings.TrimSpace(mended), "\n", "; ")+" && totp-agent clean")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("totp-agent clean: %q", shown)
}

// card is alice's, who may use sudo.
func (b *boots) card() card.Card { return b.res.Cards[0] }

func (b *boots) cycles(t *testing.T) {
	t.Helper()
	if err := b.res.Instance.OrderingCycles(t.Context(), b.card()); err != nil {
		t.Error(err)
	}
}

func (b *boots) spoil(t *testing.T, n int) {
	t.Helper()
	if _, err := b.res.Instance.Sudo(t.Context(), b.card(), b.states[n].script); err != nil {
		t.Fatalf("%s: %v", b.states[n].name, err)
	}
}

func passed(t *testing.T, rows login.Rows) {
	t.Helper()
	if !rows.OK() {
		t.Errorf("the logins are not as expected\n%s", rows)
	}
}
