// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/nspawn"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const (
	agentPath = "/usr/local/sbin/totp-agent"
	envelopes = "/var/lib/totp-agent/envelopes"
)

// work is what all tests of this package share, each made once.
type work struct {
	dir    string
	agent  func() (string, error) // path of the built agent
	people func() (map[string]*person, error)

	mu     sync.Mutex
	images map[string]func() (*image, error)
}

var lab work

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "totp-boots-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		lab = work{
			dir:    dir,
			agent:  sync.OnceValues(func() (string, error) { return buildAgent(filepath.Join(dir, "totp-agent")) }),
			people: sync.OnceValues(func() (map[string]*person, error) { return newPeople(dir) }),
			images: map[string]func() (*image, error){},
		}
		return m.Run() // the images' namespaces end with this process
	}())
}

// needLab skips a test that cannot run here, and fails it if CI=true.
func needLab(t *testing.T) {
	t.Helper()
	errs := []error{nspawn.Available()}
	for _, name := range []string{"age", "ssh", "plink", "puttygen"} {
		if _, err := exec.LookPath(name); err != nil {
			errs = append(errs, fmt.Errorf("%s is not installed; run: go run ./acctest/setup test", name))
		}
	}
	err := errors.Join(errs...)
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// person is an account of the images, with what its owner has at home.
type person struct {
	name, password string
	key            *login.Key
	identity       string // file of an age identity
	recipient      string
}

// newPeople makes root, alice, bob and carol. Whether they are enrolled is a matter of
// the policy.
func newPeople(dir string) (map[string]*person, error) {
	people := map[string]*person{}
	for _, name := range []string{"root", "alice", "bob", "carol"} {
		key, err := login.NewKey(dir, name)
		if err != nil {
			return nil, err
		}
		identity, recipient, err := seal.GenerateX25519()
		if err != nil {
			return nil, err
		}
		p := &person{name, "the password of " + name, key, filepath.Join(dir, name+".age-identity"), recipient}
		if err := os.WriteFile(p.identity, []byte(identity+"\n"), 0o600); err != nil {
			return nil, err
		}
		people[name] = p
	}
	return people, nil
}

// image is a baked root without enrolled users; instances are clones of it.
type image struct {
	root   *rootfs.Root
	policy string
	people map[string]*person
	log    string // of the bake
}

// policyHead is what the policies of all images begin with.
const policyHead = `version: 1
issuer: Example Hosting
backup_codes: 4
cloud_init_module: true
channels:
  - {type: console}
  - {type: file}
`

// enrolling is the policy of an image that enrolls these people.
func enrolling(names ...string) func(map[string]*person) string {
	return func(people map[string]*person) string {
		var b strings.Builder
		b.WriteString(policyHead + "users:\n")
		for _, name := range names {
			fmt.Fprintf(&b, "  - {name: %s, recipients: [%s]}\n", name, people[name].recipient)
		}
		return b.String()
	}
}

var (
	// forAliceAndBob is the policy of most images.
	forAliceAndBob = enrolling("alice", "bob")
	// forUserData is the policy of an image that leaves all users to user-data.
	forUserData = func(map[string]*person) string { return policyHead }
)

// imageOf returns a release baked under a policy. Each is made once per process. Its
// accounts are root, alice, bob and carol; each has a login key and a password.
func imageOf(t *testing.T, r rootfs.Recipe, policy func(map[string]*person) string) *image {
	t.Helper()
	needLab(t)
	people, err := lab.people()
	if err != nil {
		t.Fatal(err)
	}
	text := policy(people)
	key := r.Suite + "\n" + text
	lab.mu.Lock()
	if lab.images[key] == nil {
		lab.images[key] = sync.OnceValues(func() (*image, error) { return newImage(r, people, text) })
	}
	made := lab.images[key]
	lab.mu.Unlock()
	img, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func newImage(r rootfs.Recipe, people map[string]*person, policy string) (*image, error) {
	ctx := context.Background()
	agent, err := lab.agent()
	if err != nil {
		return nil, err
	}
	root, err := rootfs.New(ctx, rootfs.Options{Recipe: r, Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	img := &image{root: root, policy: policy, people: people}
	for _, p := range people {
		if err := root.AddUser(ctx, rootfs.User{Name: p.name, Keys: []string{p.key.Public}, Password: p.password}); err != nil {
			return nil, err
		}
	}
	// The console shows the names of units. That of Debian 11 shows descriptions otherwise.
	if _, err := root.Shell(ctx, `mkdir -p /etc/systemd/system.conf.d; printf '[Manager]\nStatusUnitFormat=name\n' >/etc/systemd/system.conf.d/lab.conf`); err != nil {
		return nil, err
	}
	const program = "/root/totp-agent-to-bake"
	// By a program of its own: a descriptor of this process that is open for writing
	// may be another child's too, and then the file cannot be run (ETXTBSY).
	if out, err := exec.Command("install", "--mode=755", "--", agent, root.Path(program)).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("install: %w\n%s", err, out)
	}
	if err := os.WriteFile(root.Path("/root/policy.yaml"), []byte(policy), 0o600); err != nil {
		return nil, err
	}
	out, err := root.Command(ctx, program, "bake", "--policy", "/root/policy.yaml").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("bake: %w\n%s", err, out)
	}
	img.log = string(out)
	// An image has no identity: each instance makes its own.
	_, err = root.Shell(ctx, "rm -f /root/policy.yaml "+program+" /etc/ssh/ssh_host_*; : >/etc/machine-id")
	return img, err
}

func buildAgent(name string) (string, error) {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", name, "../../cmd/totp-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, nil
}

// onEach runs a test on each release that is proven, all at once.
func onEach(t *testing.T, do func(*testing.T, rootfs.Recipe)) {
	t.Helper()
	t.Parallel()
	for _, r := range rootfs.CloudDebians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			do(t, r)
		})
	}
}
