// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux && amd64

package acctest_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/faults"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/leak"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// Each state-changing system call of these commands is a point. What can happen there (see
// [faults.Call.Faults]) happens on a machine of its own, and after the next run the machine
// must be as one on which nothing has happened.
//
// TOTP_FAULTS=all runs all points, as make faults does. Otherwise it is a sample in the
// order that TOTP_FAULTS_SEED gives, which is random and printed if it is not set.
// TOTP_FAULTS=10m takes ten minutes for the sample of each command.
const (
	faultsEnv = "TOTP_FAULTS"
	seedEnv   = "TOTP_FAULTS_SEED"

	// sampleTime is how long the sample of one command takes in make test: with the runs
	// without a fault, all commands take less than two minutes.
	sampleTime = 12 * time.Second

	// faultWorkers is how many points of a command are tried at once.
	faultWorkers = 3
)

// A faultCase is a command and what is to be true after it.
type faultCase struct {
	name    string
	machine func(*testing.T) *machine // what the command finds
	args    []string                  // of the agent
	rescue  bool                      // it runs outside of the machine, on its disk
	next    [][]string                // the agent runs after it; each must succeed
	subset  bool                      // with the fault the command may not have begun: there may be less afterwards
	may     []string                  // what else may be there afterwards
	goal    func(*faultRun) []string  // of a command that exits with 0
}

var faultCases = []faultCase{
	{name: "enroll", machine: newMachine, args: []string{"enroll"}, next: [][]string{{"enroll"}, {"deliver"}}, goal: (*faultRun).enrolled},
	{name: "reset", machine: delivered, args: []string{"reset", "alice"}, next: [][]string{{"enroll"}, {"deliver"}}, subset: true, goal: (*faultRun).replaced},
	{name: "reset --root", machine: delivered, args: []string{"reset", "alice"}, rescue: true, next: [][]string{{"enroll"}, {"deliver"}}, subset: true, goal: (*faultRun).replaced},
	{name: "deliver", machine: readyToDeliver, args: []string{"deliver"}, next: [][]string{{"enroll"}, {"deliver", "--again"}}, goal: (*faultRun).delivered},
	{name: "logins", machine: loggedIn, args: []string{"logins"}, next: [][]string{{"logins"}, {"enroll"}, {"deliver"}}},
	{name: "bake", machine: withPackages, args: []string{"bake", "--policy", "/root/policy.yaml"}, next: [][]string{{"bake", "--policy", "/root/policy.yaml"}}},
	{name: "clean", machine: toClean, args: []string{"clean"}, next: [][]string{{"clean"}}},
	{name: "check --repair", machine: unrepaired, args: []string{"check", "--repair"}, next: [][]string{{"check", "--repair"}},
		may: []string{"/run/totp-agent/"}}, // SSH was closed until the next run
}

// volatile is what a killed run may leave: it ends with the boot.
const volatile = "/run/totp-agent/.totp-tmp-ID"

// known are left by a command that was killed, and are removed by a run that comes a minute
// later: a younger file may be another command's that is still writing it. They are logged.
var known = []*regexp.Regexp{
	regexp.MustCompile(`^left: /etc/pam\.d/\.totp-tmp-ID$`),
	regexp.MustCompile(`^left: /var/lib/totp-agent/(\.totp-tmp-ID|totp-agent~probe)$`),
}

func isKnown(problem string) bool {
	return slices.ContainsFunc(known, func(k *regexp.Regexp) bool { return k.MatchString(problem) })
}

func readyToDeliver(t *testing.T) *machine {
	m := newMachine(t)
	m.ok("enroll")
	return m
}

func delivered(t *testing.T) *machine {
	m := readyToDeliver(t)
	m.ok("deliver")
	return m
}

// loggedIn is a machine whose users have each used a backup code, which the PAM module
// removes from the file.
func loggedIn(t *testing.T) *machine {
	m := delivered(t)
	m.must("sh", "-c", `sed -i '$d' `+pamStates+`/*`)
	return m
}

// withPackages is an image that has the packages of a bake already: what apt does when it
// is killed is not ours.
func withPackages(t *testing.T) *machine {
	baked, m := newMachine(t), newGuest(t)
	const list = `dpkg-query --show --showformat '${Package}\n'`
	before := strings.Fields(m.must("sh", "-c", list))
	missing := slices.DeleteFunc(strings.Fields(baked.must("sh", "-c", list)), func(name string) bool { return slices.Contains(before, name) })
	m.must("apt-get", "-q", "update")
	m.must(append([]string{"apt-get", "-q", "-y", "--no-install-recommends", "install"}, missing...)...)
	agent, err := lab.agent()
	if err != nil {
		t.Fatal(err)
	}
	if err := copyFile(m.Path(newAgent), agent, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Path("/root/policy.yaml"), []byte(m.img.policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

func toClean(t *testing.T) *machine {
	m := delivered(t)
	m.must("sh", "-euc", `mkdir -p /var/lib/dhcp
for f in /root/.google_authenticator /var/lib/apt/lists/x_Packages /root/.bash_history /var/lib/dhcp/dhclient.leases /var/log/auth.log /var/log/auth.log.1 /var/tmp/x; do echo trace >$f; done`)
	return m
}

// unrepaired is a machine whose PAM file is the distribution's again.
func unrepaired(t *testing.T) *machine {
	m := newMachine(t)
	if err := copyFile(m.Path("/etc/pam.d/sshd"), m.img.raw.Path("/etc/pam.d/sshd"), 0o644); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFaults(t *testing.T) {
	t.Parallel()
	needLab(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the same order again: %s=%d", seedEnv, seed)
		}
	})
	for _, fc := range faultCases {
		t.Run(fc.name, func(t *testing.T) {
			t.Parallel()
			fc.run(t, seed)
		})
	}
}

// faultMachine is a machine that points are tried on copies of.
type faultMachine struct {
	*machine
	faultCase
	identities []age.Identity
	before     map[string]otp.State // of the machine, by user
	want       [2]faults.Tree       // after the next run, without a fault; twice, to know what is random
}

func (fc faultCase) run(t *testing.T, seed uint64) {
	m := &faultMachine{machine: fc.machine(t), faultCase: fc}
	for _, p := range m.img.people {
		if p.identity == "" {
			continue
		}
		data, err := os.ReadFile(p.identity)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := seal.ParseIdentities(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		m.identities = append(m.identities, ids...)
	}
	var err error
	if m.before, err = states(m.Path); err != nil {
		t.Fatal(err)
	}
	var points []faults.Fault
	calls := 0
	for i := range m.want {
		r, problems := m.point(t.Context(), nil)
		if len(problems) > 0 {
			t.Fatalf("without a fault: %s\n%s", strings.Join(problems, "\n"), r.said())
		}
		m.want[i] = r.tree
		points, calls = pointsOf(r.res.Calls), len(r.res.Calls)
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	rnd.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	limit, all := sampleTime, os.Getenv(faultsEnv) == "all"
	if s := os.Getenv(faultsEnv); s != "" && !all {
		if limit, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", faultsEnv, err)
		}
	}
	end := time.Now().Add(limit)
	next := make(chan faults.Fault)
	var wg sync.WaitGroup
	var mu sync.Mutex
	ran, missed, tolerated := 0, 0, map[string]int{}
	found := map[string][]string{} // what a fault leads to, by the problem
	for range faultWorkers {
		wg.Go(func() {
			for f := range next {
				r, problems := m.point(t.Context(), &f)
				mu.Lock()
				ran++
				if r.res != nil && r.res.At.Name == "" {
					missed++
				}
				problems = slices.DeleteFunc(problems, func(p string) bool {
					if !isKnown(p) {
						return false
					}
					tolerated[p]++
					return true
				})
				if len(problems) > 0 {
					at := fmt.Sprintf("%s: %s", f, r.at())
					text := faults.Normal(strings.ReplaceAll(strings.Join(problems, "\n"), r.path(), ""))
					found[text] = append(found[text], at+"\n"+r.said())
				}
				mu.Unlock()
			}
		})
	}
	for _, f := range points {
		if !all && time.Now().After(end) || t.Context().Err() != nil {
			break
		}
		next <- f
	}
	close(next)
	wg.Wait()
	for _, text := range slices.Sorted(maps.Keys(found)) {
		var at []string
		for _, s := range found[text] {
			line, _, _ := strings.Cut(s, "\n")
			at = append(at, line)
		}
		t.Errorf("%s\nat %d points:\n%s\nthe first: %s", text, len(at), strings.Join(at, "\n"), found[text][0])
	}
	for _, p := range slices.Sorted(maps.Keys(tolerated)) {
		t.Logf("known, at %d points: %s", tolerated[p], p)
	}
	t.Logf("totp-agent %s: %d calls, %d of %d points, %d of them after the end of the command, problems at %d",
		fc.name, calls, ran, len(points), missed, total(found))
}

// pointsOf returns all that can happen at these calls. What is killed after a call is
// killed before the next one, too.
func pointsOf(calls []faults.Call) (points []faults.Fault) {
	for i, c := range calls {
		for _, f := range c.Faults() {
			if f.Action != faults.KillAfter || i == len(calls)-1 {
				points = append(points, f)
			}
		}
	}
	return points
}

func total(found map[string][]string) (n int) {
	for _, all := range found {
		n += len(all)
	}
	return n
}

// A faultRun is one machine, the command with its fault, and the next run.
type faultRun struct {
	*faultMachine
	copy *faults.Copy
	res  *faults.Result
	tree faults.Tree
	log  strings.Builder
}

func (r *faultRun) at() string {
	if r.res == nil {
		return "?"
	}
	name := strings.ReplaceAll(r.res.At.String(), r.copy.Mounted()+"/", "/")
	return fmt.Sprintf("call %d, %s", r.res.At.Number, faults.Normal(name))
}

// path is where this process finds the machine.
func (r *faultRun) path() string {
	if r.copy == nil {
		return "?"
	}
	return strings.TrimSuffix(r.copy.Path("/"), "/")
}

// said is what the commands have said, without envelopes.
func (r *faultRun) said() string {
	var b strings.Builder
	for line := range strings.Lines(r.log.String()) {
		if len(line) < 65 || strings.ContainsAny(line, " :") {
			b.WriteString("    " + line)
		}
	}
	return b.String()
}

// point runs one fault, and returns what is wrong.
func (m *faultMachine) point(ctx context.Context, f *faults.Fault) (r *faultRun, problems []string) {
	r = &faultRun{faultMachine: m}
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	c, err := faults.NewCopy(m.Root)
	if err != nil {
		bad("%v", err)
		return r, problems
	}
	defer func() {
		if err := c.Close(); err != nil {
			bad("%v", err)
		}
	}()
	r.copy = c
	if r.res, err = r.agent(ctx, f, m.args); err != nil {
		bad("%s: %v", m.name, err)
		return r, problems
	}
	killed := f != nil && f.Kills() && r.res.At.Name != ""
	if !killed {
		problems = append(problems, r.told(f)...)
	}
	problems = append(problems, r.secrets("after the fault")...)
	for _, args := range m.next {
		res, err := r.agent(ctx, nil, args)
		switch {
		case err != nil:
			bad("next run, %s: %v", args[0], err)
			return r, problems
		case res.Exit != 0:
			bad("next run, %s: exit %d", args[0], res.Exit)
		}
	}
	problems = append(problems, r.secrets("after the next run")...)
	problems = append(problems, r.settled()...)
	if r.tree, err = c.Tree(); err != nil {
		bad("%v", err)
	}
	if f != nil {
		for _, name := range append([]string{volatile}, m.may...) {
			delete(r.tree, name)
		}
		problems = append(problems, r.tree.Compare(m.want[0], m.want[1], m.subset)...)
	}
	return r, problems
}

// agent runs the agent, with a fault or without.
func (r *faultRun) agent(ctx context.Context, f *faults.Fault, args []string) (*faults.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd, program := r.copy.Command(append([]string{agentPath}, args...)...), "/totp-agent"
	switch {
	case args[0] == "bake":
		cmd = r.copy.Command(append([]string{newAgent}, args...)...)
	case r.rescue && args[0] == "reset":
		agent, err := lab.agent()
		if err != nil {
			return nil, err
		}
		cmd = r.copy.HostCommand(append([]string{agent, "reset", "--root", r.copy.Mounted()}, args[1:]...)...)
		cmd.Env = os.Environ()
	}
	res, err := faults.Run(ctx, cmd, program, f)
	if res != nil {
		fmt.Fprintf(&r.log, "$ totp-agent %s\n%s%sexit %d\n", strings.Join(args, " "), res.Out, res.Err, res.Exit)
	}
	return res, err
}

// told checks what a command that was not killed has said.
func (r *faultRun) told(f *faults.Fault) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	all := r.res.Out + r.res.Err
	switch {
	case r.res.Exit != 0 && r.res.Exit != 1:
		bad("exit %d, want 0 or 1", r.res.Exit)
	case r.res.Exit == 1 && r.res.Err == "":
		bad("exit 1 without a word")
	case r.res.Exit == 0 && r.goal != nil:
		for _, p := range r.goal(r) {
			bad("exit 0, and %s", p)
		}
	}
	if strings.Contains(all, "every file is as it was") {
		tree, err := r.copy.Tree()
		if err != nil {
			bad("%v", err)
		}
		for _, name := range slices.Sorted(maps.Keys(tree)) {
			bad("says that every file is as it was, and left %s %q", name, tree[name])
		}
	}
	if r.args[0] == "reset" {
		problems = append(problems, r.resetTold(f)...)
	}
	return problems
}

// resetTold checks that a reset reports the end of the old secret if and only if it has replaced it, and
// that it prints the new card.
func (r *faultRun) resetTold(f *faults.Fault) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	now, err := states(r.copy.Path)
	if err != nil {
		bad("%v", err)
		return problems
	}
	old, fresh := r.before["alice"], now["alice"]
	committed := fresh.Secret != old.Secret
	if said := strings.Contains(r.res.Err, "the old secret no longer works"); said != committed {
		bad("committed %v, and says so: %v", committed, said)
	}
	printed := strings.Contains(r.res.Out, "END AGE")
	switch {
	case !committed && r.res.Exit == 0:
		bad("exit 0 without a new secret")
	case !committed && printed:
		bad("prints an envelope and has made no new secret")
	case committed && !printed && !(f != nil && r.res.At.Path == "stdout"):
		bad("does not print the new envelope")
	case committed && printed:
		if c, err := r.opens([]byte(r.res.Out), "alice"); err != nil {
			bad("the printed envelope: %v", err)
		} else if c.Secret != fresh.Secret {
			bad("the printed envelope is not that of the live secret")
		}
	}
	return problems
}

func (r *faultRun) opens(envelope []byte, user string) (card.Card, error) {
	plain, err := seal.Open(envelope, r.identities...)
	if err != nil {
		return card.Card{}, err
	}
	c, err := card.Parse(plain)
	if err == nil && c.User != user {
		err = fmt.Errorf("a card of %q, want %q", c.User, user)
	}
	return c, err
}

// states reads all PAM state files of a machine. Other files there are an error.
func states(path func(string) string) (map[string]otp.State, error) {
	all := map[string]otp.State{}
	entries, err := os.ReadDir(path(pamStates))
	if os.IsNotExist(err) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || strings.Contains(e.Name(), "~") {
			continue // what the next run removes; the comparison of trees finds it
		}
		data, err := os.ReadFile(path(pamStates + "/" + e.Name()))
		if err != nil {
			return nil, err
		}
		s, err := otp.ParseState(data)
		if err != nil || s.Secret == "" || s.Mark.ID == "" {
			return nil, fmt.Errorf("state file of %s: damaged: %v", e.Name(), err)
		}
		all[e.Name()] = s
	}
	return all, nil
}

// settled checks the enrollments: each live secret has its sealed envelope, ready or
// delivered, and no envelope is of another secret.
func (r *faultRun) settled() (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	all, err := states(r.copy.Path)
	if err != nil {
		bad("%v", err)
		return problems
	}
	live := map[string]string{} // user by ID
	for user, s := range all {
		live[s.Mark.ID] = user
		data, err := os.ReadFile(r.copy.Path("/var/lib/totp-agent/outbox/ready/" + s.Mark.ID + "/envelope.age"))
		if os.IsNotExist(err) && s.Used {
			continue // its user has the card
		}
		if err != nil {
			bad("%s has a secret and no envelope: %v", user, err)
		} else if c, err := r.opens(data, user); err != nil {
			bad("the envelope of %s: %v", user, err)
		} else if c.Secret != s.Secret || c.ID != s.Mark.ID {
			bad("the envelope of %s is not that of the live secret", user)
		}
	}
	for _, dir := range []string{"/var/lib/totp-agent/outbox/ready", "/var/lib/totp-agent/outbox/staged", envelopes} {
		for _, e := range entries(r.copy.Path(dir)) {
			id := strings.TrimSuffix(e[strings.LastIndex(strings.TrimSuffix(e, ".age"), ".")+1:], ".age")
			if live[id] == "" || strings.HasSuffix(dir, "staged") {
				bad("%s: %s is not an envelope of a live secret", dir, faults.Normal(e))
			}
		}
	}
	return problems
}

func entries(dir string) (names []string) {
	all, _ := os.ReadDir(dir)
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// secrets looks for the live secrets, and those of before, outside of the PAM state files.
func (r *faultRun) secrets(when string) (problems []string) {
	now, err := states(r.copy.Path)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", when, err)}
	}
	var all []*leak.Needles
	for _, s := range append(slices.Collect(maps.Values(now)), slices.Collect(maps.Values(r.before))...) {
		n, err := leak.New(s.Secret, s.BackupCodes)
		if err != nil {
			return []string{err.Error()}
		}
		all = append(all, n)
	}
	if len(all) == 0 {
		return nil
	}
	needles := leak.Join(all...)
	hits, _, err := needles.Tree(r.copy.Layer())
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range leak.Files(hits) {
		if filepath.Dir("/"+name) != pamStates {
			problems = append(problems, fmt.Sprintf("%s: a secret is in %s", when, name))
		}
	}
	if hits := needles.Bytes("output", []byte(r.log.String())); len(hits) > 0 {
		problems = append(problems, when+": a secret was printed")
	}
	return problems
}

// enrolled is the goal of enroll.
func (r *faultRun) enrolled() (problems []string) {
	now, err := states(r.copy.Path)
	if err != nil {
		return []string{err.Error()}
	}
	if got := slices.Sorted(maps.Keys(now)); !slices.Equal(got, []string{"alice", "bob"}) {
		problems = append(problems, fmt.Sprintf("enrolled are %q", got))
	}
	return append(problems, r.settled()...)
}

// replaced is the goal of reset.
func (r *faultRun) replaced() []string {
	now, err := states(r.copy.Path)
	if err != nil {
		return []string{err.Error()}
	}
	if now["alice"].Secret == r.before["alice"].Secret {
		return []string{"the old secret is alive"}
	}
	return nil
}

// delivered is the goal of deliver, which may have to try again later.
func (r *faultRun) delivered() (problems []string) {
	if strings.Contains(r.res.Err, "for the next try") {
		return nil
	}
	for user, s := range r.before {
		data, err := os.ReadFile(r.copy.Path(fmt.Sprintf("%s/%s.%s.age", envelopes, user, s.Mark.ID)))
		if err == nil {
			_, err = r.opens(data, user)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("the envelope of %s is not in its place: %v", user, err))
		}
	}
	return problems
}
