// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// A person is an account with what its owner would have.
type person struct {
	account
	enrollment otp.Enrollment // empty: not enrolled

	mu   sync.Mutex
	code string // the good one that was used first
}

// people are all accounts, and what they share.
type people struct {
	byRole   map[string]*person
	key      ssh.Signer
	password string
	hostKeys []ssh.PublicKey
	options  []string // what sshd needs to know of them
	listed   bool     // lists of the image's own decide about root
	sshd     policy.SSHD
}

var userFiles = []string{target.Passwd, target.Shadow, target.Group, target.GShadow}

func (db *userDB) texts() []*string { return []*string{&db.passwd, &db.shadow, &db.group, &db.gshadow} }

func readUserDB() (userDB, error) {
	var db userDB
	for i, text := range db.texts() {
		b, err := os.ReadFile(userFiles[i])
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			continue // then nobody asks for it
		}
		if err != nil {
			return db, err
		}
		*text = string(b)
	}
	return db, nil
}

// newPeople makes the accounts, their keys and their secrets, and puts them in
// the place of the image's. said are sshd's settings for a throw-away user.
func newPeople(db userDB, prefix string, pol policy.Policy, said map[string][]string) (*people, error) {
	p := &people{byRole: map[string]*person{}, password: rand.Text(), sshd: pol.SSHD}
	first := func(keyword string) string { return append(said[keyword], "")[0] }
	var err error
	if p.key, err = userKey(first("pubkeyacceptedalgorithms") + first("pubkeyacceptedkeytypes")); err != nil {
		return nil, err
	}
	if kex := strings.Split(first("kexalgorithms"), ","); !slices.ContainsFunc(kex, func(k string) bool {
		return slices.Contains(ssh.SupportedAlgorithms().KeyExchanges, k)
	}) {
		// The client here knows no sntrup761. What is tested is who gets in.
		p.options = append(p.options, "-o", "KexAlgorithms=curve25519-sha256")
	}
	p.listed = said["allowusers"] != nil || said["allowgroups"] != nil || said["denyusers"] != nil || said["denygroups"] != nil
	if said["allowusers"] != nil { // such lists add up
		p.options = append(p.options, "-o", "AllowUsers="+prefix+"*")
	}
	if slices.ContainsFunc(pol.SSHD.ExemptFrom, func(n string) bool { return strings.Contains(n, ":") }) {
		p.options = append(p.options, "-o", "ListenAddress=::1")
	}

	roles := []string{roleCode, roleBackup, roleWrong, rolePassword, roleBare, roleNobody, roleRoot, roleFrom}
	for _, g := range pol.SSHD.ExemptGroups {
		roles = append(roles, roleGroup+" "+g)
	}
	for _, u := range pol.SSHD.ExemptUsers {
		roles = append(roles, roleUser+" "+u)
	}
	ids, err := db.freeIDs(2 * len(roles))
	if err != nil {
		return nil, err
	}
	salt := rand.Text()[:16]
	for i, role := range roles {
		a := account{name: prefix + role, password: "*"}
		kind, named, _ := strings.Cut(role, " ")
		switch kind {
		case roleRoot:
			a.name = "root"
		case rolePassword:
			a.password = sha512crypt(p.password, salt)
		case roleUser:
			a.name = named
		case roleGroup:
			a.name = fmt.Sprintf("%sgroup%d", prefix, i)
			a.groups = []string{named}
		}
		if groups := strings.Fields(first("allowgroups")); len(groups) > 0 && a.name != "root" {
			a.groups = append(a.groups, groups[0])
		}
		a.home = path.Join(dir, "home", a.name)
		if a, err = db.add(a, ids[2*i], ids[2*i+1], target.Shell); err != nil {
			return nil, err
		}
		p.byRole[role] = &person{account: a}
	}
	for i, text := range db.texts() {
		if _, err := os.Stat(userFiles[i]); err != nil {
			continue
		}
		if err := replace(userFiles[i], *text); err != nil {
			return nil, err
		}
	}
	if err := p.authorize(first("authorizedkeysfile")); err != nil {
		return nil, err
	}
	return p, p.enroll(pol)
}

// authorize gives everybody the key, at the first place where sshd looks for it.
func (p *people) authorize(file string) error {
	line := ssh.MarshalAuthorizedKey(p.key.PublicKey())
	file = append(strings.Fields(file), ".ssh/authorized_keys")[0]
	covered := ""
	for _, q := range p.byRole {
		if err := errors.Join(os.Mkdir(q.home, 0o700), os.Chown(q.home, q.uid, q.gid)); err != nil {
			return err
		}
		// sshd_config(5), TOKENS
		name := strings.NewReplacer("%%", "%", "%h", q.home, "%u", q.name, "%U", fmt.Sprint(q.uid)).Replace(file)
		if !path.IsAbs(name) {
			name = path.Join(q.home, name)
		}
		parent := path.Dir(name)
		if !strings.HasPrefix(name, dir+"/") && covered == "" {
			// A directory of all users' keys, such as /etc/ssh/keys/%u.
			if err := cover(parent); err != nil {
				return fmt.Errorf("AuthorizedKeysFile %q: %w; a directory for it must be there", file, err)
			}
			covered = parent
		}
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(name, line, 0o600); err != nil {
			return err
		}
		own := []string{name}
		if parent != covered && parent != q.home {
			own = append(own, parent)
		}
		for _, n := range own {
			if err := os.Chown(n, q.uid, q.gid); err != nil {
				return err
			}
		}
	}
	return nil
}

// enroll makes secrets, and puts memory with them over the place of the real ones.
func (p *people) enroll(pol policy.Policy) error {
	limit := otp.Standard
	if pol.RateLimit == policy.RateStrict {
		limit = otp.Strict
	}
	if err := cover(target.PAMStateDir); err != nil {
		return err
	}
	for role, q := range p.byRole {
		if role == roleNobody {
			continue
		}
		var err error
		q.enrollment, err = otp.New(otp.Params{Issuer: "self-test", Account: q.name + "@self-test", BackupCodes: 2}, rand.Reader)
		if err != nil {
			return err
		}
		text, err := otp.State{Secret: q.enrollment.Secret, RateLimit: limit, Window: 3, BackupCodes: q.enrollment.BackupCodes}.Format()
		if err != nil {
			return err
		}
		if err := os.WriteFile(path.Join(target.PAMStateDir, q.name), text, 0o400); err != nil {
			return err
		}
	}
	return nil
}

func (p *people) by(role string) (*person, error) {
	if q, ok := p.byRole[role]; ok {
		return q, nil
	}
	return nil, fmt.Errorf("role %q: no such account", role)
}

// secrets are what must be in no line.
func (p *people) secrets() []string {
	out := []string{p.password}
	for _, q := range p.byRole {
		q.mu.Lock()
		for _, s := range append([]string{q.enrollment.Secret, q.code}, q.enrollment.BackupCodes...) {
			if s != "" {
				out = append(out, s)
			}
		}
		q.mu.Unlock()
	}
	return out
}

// answer is what the account's owner types.
func (q *person) answer(a answer, password string, now time.Time) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case a == passwordAsCode:
		return password, nil
	case q.enrollment.Secret == "":
		return "123456", nil
	case a == backupCode:
		return q.enrollment.BackupCodes[0], nil
	case a == wrongCode:
		return q.wrong(now)
	case q.code == "":
		var err error
		q.code, err = otp.Code(q.enrollment.Secret, now)
		return q.code, err
	}
	return q.code, nil
}

// wrong is a code that is not good within minutes of now.
func (q *person) wrong(now time.Time) (string, error) {
	var good []string
	for i := -5; i <= 5; i++ {
		c, err := otp.Code(q.enrollment.Secret, now.Add(time.Duration(i)*otp.Period*time.Second))
		if err != nil {
			return "", err
		}
		good = append(good, c)
	}
	for {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return "", err
		}
		if c := fmt.Sprintf("%06d", binary.BigEndian.Uint32(b[:])%1_000_000); !slices.Contains(good, c) {
			return c, nil
		}
	}
}

// bases are networks of which the rows' clients have addresses; the last ones are
// for documentation, RFC 5737.
var bases = []string{"127.0.1.0", "192.0.2.0", "198.51.100.0", "203.0.113.0"}

// source gives a row's client an address: one of a network, or one that is not
// exempt.
func (p *people) source(number int, network string) (*net.TCPAddr, error) {
	if network != "" {
		n, err := netip.ParsePrefix(network)
		if err != nil {
			return nil, err
		}
		a := n.Addr()
		if next := a.Next(); n.Contains(next) {
			a = next
		}
		return tcp(a), addAddress(number, a)
	}
	for _, b := range bases {
		bytes := netip.MustParseAddr(b).As4()
		bytes[3] = byte(number + 1)
		if a := netip.AddrFrom4(bytes); !p.sshd.Exempts("", nil, a) {
			return tcp(a), addAddress(number, a)
		}
	}
	return nil, fmt.Errorf("sshd.exempt_from: %q: every address that the self-test could come from is exempt", p.sshd.ExemptFrom)
}

func tcp(a netip.Addr) *net.TCPAddr { return &net.TCPAddr{IP: a.AsSlice()} }

// addAddress gives the loopback interface an address.
func addAddress(number int, a netip.Addr) error {
	if a.IsLoopback() {
		return nil
	}
	var err error
	if a.Is4() {
		err = interfaceRequest(fmt.Sprintf("lo:%d", number), unix.SIOCSIFADDR, func(r *unix.Ifreq) error {
			return r.SetInet4Addr(a.AsSlice())
		})
	} else {
		err = addAddress6(a)
	}
	if err != nil {
		return err
	}
	// The kernel takes a moment to make sure that nobody else has it (RFC 4862
	// section 5.4), on this interface, too.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		l, err := net.ListenTCP("tcp", tcp(a))
		if err == nil {
			return l.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
}
