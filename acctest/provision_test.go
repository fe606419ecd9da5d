// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/packer"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// template is a whole build: Packer's null source connects over SSH to the
// guest. The provisioner's block comes in at the end, and what comes later.
const template = `
packer {
  required_plugins {
    totp = {
      source  = "github.com/packer-plugin-totp/totp"
      version = ">= 0.1.0"
    }
  }
}
source "null" "guest" {
  ssh_host             = %q
  ssh_port             = %d
  ssh_username         = %q
  ssh_private_key_file = %q
}
build {
  sources = ["source.null.guest"]
  provisioner "totp" {
%s
  }
%s
}
`

// packerBuild provisions the guest as a user, with real Packer and the built
// plugin, and with other provisioners later. It returns what Packer said, what
// sshd logged, and how Packer ended.
func (m *machine) packerBuild(user, block, later string) (out, sshdLog string, ended error) {
	m.t.Helper()
	var text strings.Builder
	sshdLog, ended = m.packerBuildTo(m.t.Context(), &text, user, block, later)
	return text.String(), sshdLog, ended
}

// packerBuildTo is packerBuild with a writer of its own. The end of ctx is a Ctrl-C.
func (m *machine) packerBuildTo(ctx context.Context, out io.Writer, user, block, later string) (sshdLog string, ended error) {
	m.t.Helper()
	sshd, err := m.StartSSHD(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	source := fmt.Sprintf(template, sshd.Host, sshd.Port, user, m.img.people[user].key.File, block, later)
	file := filepath.Join(m.dir, "build.pkr.hcl")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		m.t.Fatal(err)
	}
	p, err := realPacker()
	if err != nil {
		m.t.Fatal(err)
	}
	ended = p.Run(ctx, m.dir, out, "build", "-color=false", file)
	if err := sshd.Stop(); err != nil {
		m.t.Error(err)
	}
	return sshd.Log(), ended
}

// block is policyFor in the template's words.
func block(people ...*person) string {
	var b strings.Builder
	b.WriteString("issuer = \"Example Hosting\"\nbackup_codes = 4\nchannel {\n  type = \"file\"\n}\n")
	for _, p := range people {
		fmt.Fprintf(&b, "user {\n  name = %q\n  recipients = [%q]\n}\n", p.name, p.recipient)
	}
	return b.String()
}

// The whole way by the plugin: packer build, first boot, envelope, login.
func TestPackerBuildEnrollLogin(t *testing.T) {
	t.Parallel()
	t.Run("as root, by HCL", func(t *testing.T) {
		t.Parallel()
		m := newGuest(t)
		people := m.img.people
		m.provisionAndLogIn("root", block(people["alice"], people["bob"]))
	})
	t.Run("with sudo, by policy_file", func(t *testing.T) {
		t.Parallel()
		m := newGuest(t)
		// carol builds the image, and is not to get into its instances.
		carol := m.img.people["carol"]
		err := m.AddUser(t.Context(), rootfs.User{Name: "carol", Keys: []string{carol.key.Public}, SudoNoPass: true})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(m.dir, "policy.yaml")
		if err := os.WriteFile(file, []byte(m.img.policy+"clean: {build_user: carol}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		m.provision("carol", fmt.Sprintf("policy_file = %q", file), goOn)
		m.finish("carol")
		// A stranger of that name comes to the instance.
		if err := m.AddUser(t.Context(), rootfs.User{Name: "carol", Keys: []string{carol.key.Public}, Password: carol.password}); err != nil {
			t.Fatal(err)
		}
		m.enrollAndLogIn()
	})
}

// goOn are provisioners after ours: one that cleans, which ours leaves to its user
// where Packer makes no image; one that needs the session and sudo; one that ends
// the connection, as a reboot does; and one on a connection of its own.
const goOn = `
  provisioner "shell" {
    inline = ["sudo -n totp-agent clean --report"]
  }
  provisioner "shell" {
    inline = ["echo later-as-$(sudo -n id -un)-for-$(id -un)"]
  }
  provisioner "shell" {
    expect_disconnect = true
    inline = ["sudo -n sh -c 'for p in /proc/[0-9]*; do if grep -qa \"^sshd[-a-z]*: carol\" $p/cmdline; then kill -9 $(basename $p); fi; done'"]
  }
  provisioner "shell" {
    inline = ["echo again-as-$(sudo -n id -un)-for-$(id -un)"]
  }
`

func (m *machine) provisionAndLogIn(builder, block string) {
	m.t.Helper()
	log := m.provision(builder, block, "")
	// One for each operation of the communicator.
	if n := strings.Count(log, "Starting session:"); n == 0 || n > 6 {
		m.t.Errorf("%d sessions, want 6 at most\n%s", n, log)
	}
	m.must("sh", "-c", newMachineID)
	m.enrollAndLogIn()
}

// provision builds the image, and returns what sshd logged meanwhile.
func (m *machine) provision(builder, block, later string) (sshdLog string) {
	t := m.t
	t.Helper()
	report := filepath.Join(m.dir, "report.json")
	out, log, err := m.packerBuild(builder, fmt.Sprintf("%s\nreport = %q\n", block, report), later)
	t.Logf("packer:\n%s", out)
	if err != nil {
		t.Fatalf("%v\nsshd:\n%s", err, log)
	}
	if later != "" {
		deferred := fmt.Sprintf(`the account \"%s\" with its home directory, password and sudo rules`, builder)
		for _, want := range []string{deferred, "later-as-root-for-" + builder, "again-as-root-for-" + builder} {
			if !strings.Contains(out, want) {
				t.Errorf("no later provisioner has said %q", want)
			}
		}
		connections := map[string]bool{}
		for _, session := range regexp.MustCompile(`Starting session: .* port [0-9]+`).FindAllString(log, -1) {
			connections[session] = true
		}
		if len(connections) != 2 {
			t.Errorf("%d connections, want one and another after that was lost\n%s", len(connections), log)
		}
	}
	fetched, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if there := m.must("cat", "/var/lib/totp-agent/report.json"); string(fetched) != there && later == "" {
		t.Error("the report that was fetched is not the guest's")
	}
	if left := m.must("find", "/tmp", "/var/tmp", "-mindepth", "1"); left != "" {
		t.Errorf("the build has left %q", left)
	}
	if got := m.list(pamStates); len(got) != 0 {
		t.Errorf("secrets in the image: %v", got)
	}
	return log
}

// finish is what the image's first boot does with what the build needed: until
// then it is there, and deferred.
func (m *machine) finish(builder string) {
	t := m.t
	t.Helper()
	needed := []string{"/home/" + builder + "/.ssh/authorized_keys", "/etc/sudoers.d/90-" + builder, "/root/.ssh/authorized_keys", "/etc/ssh/ssh_host_ed25519_key"}
	if there := m.exist(needed...); !slices.Equal(there, needed) {
		t.Errorf("of what the build needs only %q are there", there)
	}
	m.ok("clean", "--finish", "boot")
	if there := m.exist(append(needed, "/home/"+builder)...); there != nil {
		t.Errorf("still there: %q", there)
	}
	if s := run(t, m.Command(t.Context(), "id", builder)); s.code == 0 {
		t.Errorf("the account %s is there", builder)
	}
	m.must("ssh-keygen", "-A")
}

// enrollAndLogIn is an instance's first boot, and all that is tried with it.
func (m *machine) enrollAndLogIn() {
	m.t.Helper()
	m.ok("check")
	cards := m.firstBoot()
	if len(cards) != 2 {
		m.t.Fatalf("%d cards, want alice's and bob's", len(cards))
	}
	m.table(cards)
}

// A guest that cannot be baked is left as it was, with one error.
func TestPackerBuildWithoutSudoIsRefused(t *testing.T) {
	t.Parallel()
	m := newGuest(t)
	people := m.img.people
	before := snapshot(t, m.Path("/etc"))
	out, _, err := m.packerBuild("carol", block(people["alice"]), "")
	if err == nil || !strings.Contains(out, "sudo") {
		t.Errorf("%v\n%s", err, out)
	}
	if got := changed(before, snapshot(t, m.Path("/etc"))); len(got) != 0 {
		t.Errorf("changed %v", got)
	}
}

// realPacker is a Packer with this plugin in it.
var realPacker = sync.OnceValues(func() (*packer.Packer, error) {
	ctx := context.Background()
	cache, err := rootfs.CacheDir()
	if err != nil {
		return nil, err
	}
	plugin, err := buildPlugin(ctx, lab.dir)
	if err != nil {
		return nil, err
	}
	p, err := packer.Find(ctx, filepath.Dir(cache), cache, filepath.Join(lab.dir, "packer"), os.Stderr)
	if err != nil {
		return nil, err
	}
	return p, p.Install(ctx, plugin, packer.Source)
})

// buildPlugin builds the plugin with the agents of this tree in it, as a release
// has them, and leaves those of an earlier make alone.
func buildPlugin(ctx context.Context, dir string) (string, error) {
	top, err := filepath.Abs("..")
	if err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for _, arch := range []string{"amd64", "arm64"} {
		agent := filepath.Join(dir, "totp-agent-linux-"+arch)
		if err := goBuild(ctx, agent, "../cmd/totp-agent", "GOOS=linux", "GOARCH="+arch); err != nil {
			return "", err
		}
		if err := pack(agent); err != nil {
			return "", err
		}
		name := filepath.Base(agent) + ".gz"
		overlay.Replace[filepath.Join(top, "internal", "agentbin", "agents", name)] = agent + ".gz"
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return "", err
	}
	plugin := filepath.Join(dir, "packer-plugin-totp")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "embed_agent", "-overlay", file,
		"-ldflags", "-s -w", "-o", plugin, "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return plugin, nil
}

// pack compresses a file beside it.
func pack(name string) (err error) {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(name + ".gz")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	gz, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(gz, in); err != nil {
		return err
	}
	return gz.Close()
}
