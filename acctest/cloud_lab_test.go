// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// cloudSettings keep the real cloud-init away from what a root is not: it has no
// disk and no network of its own. One kind of host key is enough, and RSA keys
// take most of a first boot's time.
const cloudSettings = `datasource_list: [NoCloud, None]
network: {config: disabled}
growpart: {mode: "off"}
resize_rootfs: false
ssh_genkeytypes: [ed25519]
`

// seedDir is where cloud-init looks for a NoCloud seed.
const seedDir = "/var/lib/cloud/seed/nocloud"

var cloudImages = struct {
	sync.Mutex
	of map[string]func() (*image, error)
}{of: map[string]func() (*image, error){}}

// cloudName is what tests of such a release go by.
func cloudName(r rootfs.Recipe) string {
	return strings.Join(append([]string{r.Suite}, r.Newer...), "+")
}

// cloudImage is a release with cloud-init, baked under a policy that names nobody
// and has the module installed. Nothing of cloud-init has run on it.
func cloudImage(r rootfs.Recipe) (*image, error) {
	cloudImages.Lock()
	if cloudImages.of[r.Name] == nil {
		cloudImages.of[r.Name] = sync.OnceValues(func() (*image, error) { return newCloudImage(r) })
	}
	make := cloudImages.of[r.Name]
	cloudImages.Unlock()
	return make()
}

const cloudPolicy = "version: 1\nissuer: Image\nbackup_codes: 4\nchannels: [{type: file}]\ncloud_init_module: true\n"

func newCloudImage(r rootfs.Recipe) (*image, error) {
	ctx := context.Background()
	img := &image{recipe: r, people: map[string]*person{}, policy: cloudPolicy}
	dir := filepath.Join(lab.dir, "cloud-"+cloudName(r))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{"alice", "bob", "root"} {
		p, err := newPerson(dir, name, true)
		if err != nil {
			return nil, err
		}
		img.people[name] = p
	}
	var err error
	if img.raw, err = rootfs.New(ctx, rootfs.Options{Recipe: r, Log: os.Stderr}); err != nil {
		return nil, err
	}
	if err := os.WriteFile(img.raw.Path("/etc/cloud/cloud.cfg.d/90-lab.cfg"), []byte(cloudSettings), 0o644); err != nil {
		return nil, err
	}
	if img.root, err = img.raw.Clone(); err != nil {
		return nil, err
	}
	img.log, err = bakeRoot(ctx, img.root, img.policy)
	return img, err
}

// instance is a server of such an image, that the test boots stage by stage: all
// that comes before sshd.
type instance struct {
	*machine
}

func newInstance(t *testing.T, r rootfs.Recipe) *instance {
	t.Helper()
	needLab(t)
	img, err := cloudImage(r)
	if err != nil {
		t.Fatal(err)
	}
	m := cloneOf(t, img, img.root)
	m.must("sh", "-c", newMachineID)
	return &instance{m}
}

// seed is what the provider gives an instance. The datasource cannot be reached
// where it is nil.
type seed struct {
	id, user, vendor string
	keys             []string // of the panel
}

func (i *instance) plug(s *seed) {
	i.t.Helper()
	if err := os.RemoveAll(i.Path(seedDir)); err != nil {
		i.t.Fatal(err)
	}
	if s == nil {
		return
	}
	meta, err := json.Marshal(map[string]any{"instance-id": s.id, "local-hostname": "web1", "public-keys": s.keys})
	if err != nil {
		i.t.Fatal(err)
	}
	if err := os.MkdirAll(i.Path(seedDir), 0o755); err != nil {
		i.t.Fatal(err)
	}
	for name, text := range map[string]string{"meta-data": string(meta), "user-data": s.user, "vendor-data": s.vendor} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(i.Path(seedDir+"/"+name), []byte(text), 0o600); err != nil {
			i.t.Fatal(err)
		}
	}
}

// stages are cloud-init's two that come before sshd, in a network of their own.
// What systemd's generator leaves is there, and /run is empty as after a boot: an
// instance-id in it would keep cloud-init from looking at the datasource.
const stages = `rm -rf /run/* && mkdir -p /run/sshd /run/cloud-init /run/lock
if [ -e /etc/cloud/cloud-init.disabled ]; then touch /run/cloud-init/disabled; exit 0; fi
if [ ! -e /usr/bin/cloud-init ]; then exit 0; fi
touch /run/cloud-init/enabled
unshare --net sh -euc 'cloud-init init --local && cloud-init init' >/dev/null 2>&1`

// boot goes the way of a boot up to sshd, and delivers.
func (i *instance) boot(s *seed) result {
	i.t.Helper()
	i.plug(s)
	i.must("sh", "-euc", stages)
	i.unit("totp-module.service")
	i.unit("totp-agent.service")
	i.ok("deliver")
	return i.result()
}

// unit does what systemd does of a unit of type oneshot, by what stands in it. A
// unit that fails stops nothing, as for the units after it in a boot.
func (i *instance) unit(name string) {
	i.t.Helper()
	text, err := os.ReadFile(i.Path("/etc/systemd/system/" + name))
	if err != nil {
		i.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "ConditionPathExists":
			path, not := strings.CutPrefix(value, "!")
			if len(i.exist(path)) > 0 == not {
				return
			}
		case "ExecCondition":
			if run(i.t, i.Command(i.t.Context(), strings.Fields(value)...)).code != 0 {
				return
			}
		case "ExecStart":
			if s := run(i.t, i.Command(i.t.Context(), strings.Fields(value)...)); s.code != 0 {
				i.t.Logf("%s: exit %d\n%s%s", value, s.code, s.out, s.err)
			}
		}
	}
}

// result is how things are after a boot.
type result struct {
	status  enroll.Status
	secrets map[string]string // user → hash of the PAM state file
	cloud   []string          // what cloud-init has to complain of
}

func (i *instance) result() result {
	i.t.Helper()
	r := result{secrets: map[string]string{}}
	i.statusInto(&r.status)
	for _, user := range i.list(pamStates) {
		sum, _, _ := strings.Cut(i.must("sha256sum", pamStates+"/"+user), " ")
		r.secrets[user] = sum
	}
	r.cloud = i.complaints()
	return r
}

// complaints are the errors of cloud-init in this boot, with those that it calls
// recoverable since 23.4.
func (i *instance) complaints() []string {
	i.t.Helper()
	if len(i.exist("/run/cloud-init/status.json")) == 0 {
		return nil
	}
	type errors struct {
		Errors      []string
		Recoverable map[string][]string `json:"recoverable_errors"`
	}
	var st struct{ V1 map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(i.must("cat", "/run/cloud-init/status.json")), &st); err != nil {
		i.t.Fatal(err)
	}
	var all []string
	for _, stage := range []string{"init-local", "init"} {
		var e errors
		if err := json.Unmarshal(st.V1[stage], &e); err != nil {
			i.t.Fatal(err)
		}
		all = append(all, e.Errors...)
		for _, list := range e.Recoverable {
			all = append(all, list...)
		}
	}
	// The root has no program that shows a network.
	return slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, "Could not print ") })
}

// enrolled are the names of those who are, in order.
func (r result) enrolled() []string {
	var names []string
	for _, u := range r.status.Users {
		if u.Enrolled {
			names = append(names, u.Name)
		}
	}
	slices.Sort(names)
	return names
}

// why is the reason why a user is not enrolled.
func (r result) why(user string) string {
	for _, u := range r.status.Users {
		if u.Name == user {
			return u.Why
		}
	}
	return "no such user in the status"
}

// refused are the layers that are, each with its error.
func (r result) refused() string {
	var all []string
	for _, l := range r.status.RefusedLayers {
		all = append(all, fmt.Sprintf("%s: %s", l.Layer, l.Error))
	}
	return strings.Join(all, "\n")
}

// card opens the present envelope of a user as its owner.
func (i *instance) card(r result, owner *person) card.Card {
	i.t.Helper()
	for _, u := range r.status.Users {
		if u.Name == owner.name && u.ID != "" {
			return i.openAs(owner, owner.name, i.Path(envelopes+"/"+owner.name+"."+u.ID+".age"))
		}
	}
	i.t.Fatalf("%s has no envelope", owner.name)
	return card.Card{}
}

// reader tries a person's identity on the envelope of a user that there is.
func (i *instance) reader(p *person, user string) said {
	i.t.Helper()
	return run(i.t, exec.CommandContext(i.t.Context(), "age", "--decrypt", "--identity", p.identity, i.envelope(user)))
}
