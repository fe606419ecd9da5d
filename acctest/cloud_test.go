// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// The boots of an instance, with each release's own cloud-init.

// clouds are the releases, and the newest cloud-init that there is.
var clouds = append(slices.Clone(rootfs.CloudDebians), rootfs.CloudTesting)

// accountOf is the part of user-data that makes an account.
func accountOf(p *person) string {
	return fmt.Sprintf("users:\n  - name: %s\n    shell: /bin/bash\n    ssh_authorized_keys: [%q]\n", p.name, p.key.Public)
}

// byKey are user-data or vendor-data that say a layer under the key totp.
func byKey(rest, layer string) string {
	return "#cloud-config\n" + rest + "totp:\n  version: 1\n" + layer
}

func document(t *testing.T, s cloudinit.Spec) string {
	t.Helper()
	doc, err := s.Document()
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// One server from its first boot to its second clone.
func TestBoots(t *testing.T) {
	t.Parallel()
	for _, r := range clouds {
		t.Run(cloudName(r), func(t *testing.T) {
			t.Parallel()
			i := newInstance(t, r)
			var major int
			if _, err := fmt.Sscanf(i.must("cloud-init", "--version"), "/usr/bin/cloud-init %d.", &major); err != nil || r.From != "" && major < 26 {
				t.Fatalf("cloud-init %d: %v", major, err)
			}
			alice, root := i.img.people["alice"], i.img.people["root"]
			heir, err := newPerson(i.dir, "alice", true) // owns the clone
			if err != nil {
				t.Fatal(err)
			}
			strict := r.Suite == "trixie" // cloud-init judges keys that it does not know

			first := &seed{id: "i-1",
				user: document(t, cloudinit.Spec{Users: []cloudinit.User{
					{Name: "alice", Recipients: []string{alice.recipient}, SSHKeys: []string{alice.key.Public}},
					{Name: "ghost", Recipients: []string{alice.recipient}},
				}}),
				vendor: document(t, cloudinit.Spec{Vendor: true, Issuer: "Provider"}),
			}
			clone := &seed{id: "i-2",
				user:   byKey(accountOf(heir), fmt.Sprintf("  users: [{name: alice, recipients: [%s]}]\n  escrow_recipients: [%s]\n", heir.recipient, i.img.people["bob"].recipient)),
				vendor: byKey("", "  issuer: Provider\n  rate_limit: strict\n"),
			}
			closed := &seed{id: "i-3", user: "#cloud-config\n" + accountOf(heir),
				vendor: byKey("", fmt.Sprintf("  escrow_recipients: [%s]\n", i.img.people["bob"].recipient))}

			const script = "#!/bin/sh\necho hello\n"
			merged, err := (cloudinit.Spec{Users: []cloudinit.User{
				{Name: "alice", Recipients: []string{heir.recipient}, SSHKeys: []string{heir.key.Public}},
				{Name: "root", Recipients: []string{root.recipient}, SSHKeys: []string{root.key.Public}},
			}}).Merge("script", []byte(script))
			if err != nil {
				t.Fatal(err)
			}
			beside := &seed{id: "i-4", user: string(merged), vendor: first.vendor}

			var was result
			same := func(t *testing.T, now result) {
				t.Helper()
				if !maps.Equal(now.secrets, was.secrets) || !slices.Equal(now.enrolled(), []string{"alice"}) {
					t.Errorf("secrets of %v before, of %v now; enrolled %v", slices.Sorted(maps.Keys(was.secrets)), slices.Sorted(maps.Keys(now.secrets)), now.enrolled())
				}
			}
			var old, fresh card.Card
			for _, boot := range []struct {
				name   string
				before string // a shell script
				seed   *seed
				check  func(*testing.T, result)
			}{
				{"first boot, layers by write_files, a user without an account", "", first, func(t *testing.T, now result) {
					if !slices.Equal(now.enrolled(), []string{"alice"}) || !strings.Contains(now.why("ghost"), "no such account") {
						t.Fatalf("enrolled %v, ghost %q, refused %q", now.enrolled(), now.why("ghost"), now.refused())
					}
					if old = i.card(now, alice); old.Issuer != "Provider" || old.InstanceID != "i-1" {
						t.Errorf("the card is of %q and %q", old.Issuer, old.InstanceID)
					}
					if len(now.cloud) > 0 {
						t.Errorf("cloud-init complains: %q", now.cloud)
					}
					was = now
				}},
				{"reboot", "", first, same},
				{"the datasource cannot be reached", "", nil, same},
				{"it can again, after cloud-init clean", "cloud-init clean --logs >/dev/null", first, same},
				{"another instance-id, layers by the key totp", "", clone, func(t *testing.T, now result) {
					if !slices.Equal(now.enrolled(), []string{"alice"}) || now.secrets["alice"] == was.secrets["alice"] {
						t.Fatalf("enrolled %v, refused %q, secrets %v", now.enrolled(), now.refused(), now.secrets)
					}
					fresh = i.card(now, heir)
					if fresh.Issuer != "Provider" || fresh.InstanceID != "i-2" || len(fresh.Recipients) != 2 {
						t.Errorf("the card is of %q and %q, for %d", fresh.Issuer, fresh.InstanceID, len(fresh.Recipients))
					}
					if names := i.list(envelopes); len(names) != 1 {
						t.Errorf("envelopes %q, want the new one", names)
					}
					if s := i.reader(alice, "alice"); s.code == 0 {
						t.Error("the original's owner reads the clone's envelope")
					}
					if got := strings.Contains(strings.Join(now.cloud, "\n"), "schema"); got != strict {
						t.Errorf("cloud-init complains: %q", now.cloud)
					}
					server := i.serve(fresh)
					i.img.people["alice"] = heir // whose login key counts now
					defer func() { i.img.people["alice"] = alice }()
					if got := i.enters(server, old, login.NewCodes(old.Secret, old.BackupCodes)); got != login.Refused {
						t.Errorf("with the original's secret: %v", got)
					}
					if got := i.enters(server, fresh, login.NewCodes(fresh.Secret, fresh.BackupCodes)); got != login.In {
						t.Errorf("with the clone's secret: %v", got)
					}
				}},
				{"a third one, without recipients, and with a vendor's layer that asks too much", "", closed, func(t *testing.T, now result) {
					if len(now.secrets) != 0 || len(now.enrolled()) != 0 || now.status.Notice == "" || len(i.list(envelopes)) != 0 {
						t.Errorf("secrets %v, enrolled %v, notice %q, envelopes %q", now.secrets, now.enrolled(), now.status.Notice, i.list(envelopes))
					}
					if !strings.HasPrefix(now.refused(), "vendor: totp-vendor-module.yaml:3:24: escrow_recipients: ") {
						t.Errorf("refused %q", now.refused())
					}
				}},
				{"a fourth one, beside a script, with a key for root", "", beside, func(t *testing.T, now result) {
					if !slices.Equal(now.enrolled(), []string{"alice", "root"}) || len(now.cloud) > 0 {
						t.Fatalf("enrolled %v, refused %q, cloud-init complains: %q", now.enrolled(), now.refused(), now.cloud)
					}
					if c := i.card(now, heir); c.Issuer != "Provider" || c.InstanceID != "i-4" {
						t.Errorf("the card is of %q and %q", c.Issuer, c.InstanceID)
					}
					if got := i.must("cat", "/var/lib/cloud/instance/scripts/user-data"); got != script {
						t.Errorf("the script is %q", got)
					}
				}},
			} {
				if boot.before != "" {
					i.must("sh", "-euc", boot.before)
				}
				t.Run(boot.name, func(t *testing.T) {
					i.t = t
					boot.check(t, i.boot(boot.seed))
				})
				if i.t = t; t.Failed() {
					break
				}
			}
		})
	}
}

// Whatever is wrong, no fault comes out of the module to stop a stage. Debian 11
// has the oldest Python that it runs on.
func TestModuleFaults(t *testing.T) {
	t.Parallel()
	for suite, version := range map[string]string{"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			i := newInstance(t, rootfs.CloudDebians[slices.IndexFunc(rootfs.CloudDebians, func(r rootfs.Recipe) bool { return r.Suite == suite })])
			if err := copyFile(i.Path("/root/faults.py"), "testdata/cc_totp_faults.py", 0o644); err != nil {
				t.Fatal(err)
			}
			if out := i.must("/usr/bin/python3", "-B", "/root/faults.py"); out != version+" ok\n" {
				t.Errorf("said %q", out)
			}
		})
	}
}

// A provider whose panel puts the SSH key on root alone, and an image in whose own
// list cloud-init finds the module.
func TestBootOfRootAlone(t *testing.T) {
	t.Parallel()
	for _, r := range clouds {
		t.Run(cloudName(r), func(t *testing.T) {
			t.Parallel()
			i := newInstance(t, r)
			if _, err := bakeRoot(t.Context(), i.Root, i.img.policy+"cloud_init_module_listed: true\n"); err != nil {
				t.Fatal(err)
			}
			i.ok("check")
			verdict, _ := i.Command(t.Context(), "systemd-analyze", "verify", "--man=no", "totp-module.service").CombinedOutput()
			if strings.Contains(string(verdict), "totp-") {
				t.Errorf("systemd-analyze verify: %s", verdict)
			}
			// cloud-init alone is to call the module.
			i.must("rm", "/etc/systemd/system/totp-module.service")
			i.must("touch", "/etc/systemd/system/totp-module.service")
			i.must("sh", "-c", "printf 'disable_root: false\nusers: []\n' >/etc/cloud/cloud.cfg.d/91-provider.cfg")
			root := i.img.people["root"]
			now := i.boot(&seed{id: "i-1", keys: []string{root.key.Public},
				user: byKey("", fmt.Sprintf("  users: [{name: root, recipients: [%s]}]\n", root.recipient))})
			if !slices.Equal(now.enrolled(), []string{"root"}) {
				t.Fatalf("enrolled %v, refused %q, cloud-init said %q\n%s", now.enrolled(), now.refused(), now.cloud, i.must("sh", "-c", "cat /var/log/cloud-init-output.log"))
			}
			c := i.card(now, root)
			a := login.Account{User: "root", Key: root.key, Codes: login.NewCodes(c.Secret, c.BackupCodes)}
			server := i.serve(c)
			if got, err := login.Enter(t.Context(), login.Go{}, server, a); err != nil || got.Outcome != login.In {
				t.Errorf("key and code: %v, %v", got, err)
			}
			alone := login.OpenSSH{Dir: i.dir}.Login(t.Context(), server, login.Try{User: "root", Key: root.key, Methods: []string{login.PublicKey}})
			if alone.Outcome != login.Unasked {
				t.Errorf("key alone: %v", alone)
			}
		})
	}
}

// Without cloud-init, and where it is switched off, the machine-id names the
// machine, and the image's policy its users.
func TestBootWithoutCloudInit(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.CloudDebians {
		for name, without := range map[string]string{
			"disabled": "touch /etc/cloud/cloud-init.disabled",
			"absent":   "rm /usr/bin/cloud-init",
		} {
			t.Run(r.Suite+"/"+name, func(t *testing.T) {
				t.Parallel()
				i := newInstance(t, r)
				alice := i.img.people["alice"]
				if err := i.AddUser(t.Context(), rootfs.User{Name: "alice", Keys: []string{alice.key.Public}}); err != nil {
					t.Fatal(err)
				}
				policy := cloudPolicy + "users: [{name: alice, recipients: [" + alice.recipient + "]}]\n"
				if err := os.WriteFile(i.Path("/etc/totp-agent/image.yaml"), []byte(policy), 0o600); err != nil {
					t.Fatal(err)
				}
				i.must("sh", "-euc", without)
				// A seed that nobody reads.
				data := &seed{id: "i-1", user: byKey("", "  users: [{name: alice, recipients: ["+i.img.people["bob"].recipient+"]}]\n")}
				now := i.boot(data)
				if !slices.Equal(now.enrolled(), []string{"alice"}) || !strings.HasPrefix(now.status.Identity, "machine-id") {
					t.Fatalf("enrolled %v by %q", now.enrolled(), now.status.Identity)
				}
				old := i.card(now, alice)
				if again := i.boot(data); !maps.Equal(again.secrets, now.secrets) {
					t.Error("a reboot has changed the secrets")
				}
				i.must("sh", "-c", newMachineID)
				if c := i.card(i.boot(data), alice); c.Secret == old.Secret {
					t.Error("another machine has the same secret")
				}
			})
		}
	}
}
