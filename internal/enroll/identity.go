// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// An Identity names the one machine that a secret is bound to. Its text form,
// three digests joined by dots, stands in the PAM state file of every user
// enrolled by the agent, so that the file that makes a login possible also
// says where it may be used.
//
// The first part is the primary identity: the instance-id of a real
// cloud-init datasource, or the machine-id where there is no cloud-init. The
// second is the DMI product UUID, "-" where the machine has no believable
// one. The third is the machine-id; it decides only when the datasource
// cannot be asked.
type Identity struct {
	primary, dmi, machine string
}

// ErrIdentity is returned for a text that is not an identity.
var ErrIdentity = errors.New("not an identity")

// String returns the text form.
func (i Identity) String() string {
	return i.primary + "." + i.dmi + "." + i.machine
}

// IsZero reports whether there is no identity.
func (i Identity) IsZero() bool { return i == Identity{} }

// ParseIdentity reads the text form.
func ParseIdentity(s string) (Identity, error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return Identity{}, fmt.Errorf("%q: %w", s, ErrIdentity)
	}
	for _, p := range parts {
		if p != absent && len(p) != digestLen {
			return Identity{}, fmt.Errorf("%q: %w", s, ErrIdentity)
		}
	}
	if parts[0] == absent {
		return Identity{}, fmt.Errorf("%q: %w", s, ErrIdentity)
	}
	return Identity{parts[0], parts[1], parts[2]}, nil
}

const (
	absent    = "-"
	digestLen = 16

	// The kinds of a primary identity are its first character, so that an
	// instance-id and a machine-id are never taken for each other.
	kindInstance = "a"
	kindMachine  = "b"
)

func digest(kind, value string) string {
	sum := sha256.Sum256([]byte("totp-agent identity 1\x00" + kind + "\x00" + value))
	return hex.EncodeToString(sum[:])[:digestLen]
}

func primary(kind, value string) string {
	return kind + digest(kind, value)[1:]
}

// same reports whether two identities of which both primaries are known name
// one machine. A DMI UUID speaks only where both sides have one.
func (i Identity) same(o Identity) bool {
	if i.primary != o.primary {
		return false
	}
	return i.dmi == o.dmi || i.dmi == absent || o.dmi == absent
}

// sameHardware is the rule for a machine whose datasource did not answer: it
// is still the bound one if machine-id and DMI UUID are.
func (i Identity) sameHardware(o Identity) bool {
	return i.machine != absent && i.machine == o.machine && i.dmi == o.dmi
}

// A sighting is what a boot shows of the machine's identity.
type sighting struct {
	Identity
	// known is false where a datasource should have named the instance and
	// did not: unknown is not new.
	known bool
	// instanceID is for people and cards; empty where there is none.
	instanceID string
	// machineID is the raw one, empty where the machine has none yet.
	machineID string
	// why says in words where the identity comes from, or why it is unknown.
	why string
}

// look reads the identity of the machine. bound is the identity that the
// present enrollments were made for, zero if there are none: a machine that
// was once named by a datasource does not become another one because
// cloud-init is switched off later.
func look(t *target.Target, bound Identity) (sighting, error) {
	s := sighting{Identity: Identity{primary: absent, dmi: absent, machine: absent}}
	machineID, err := readWord(t, target.MachineID)
	if err != nil {
		return s, err
	}
	if machineID == "uninitialized" {
		machineID = ""
	}
	if machineID != "" {
		s.machineID, s.machine = machineID, digest("machine", machineID)
	}
	if runs(t) {
		uuid, err := readWord(t, target.DMIProductUUID)
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return s, err
		}
		if u, ok := believableUUID(uuid); ok {
			s.dmi = digest("dmi", u)
		}
	}

	cloud, err := cloudInit(t)
	if err != nil {
		return s, err
	}
	switch {
	case cloud.instanceID != "":
		s.primary, s.known = primary(kindInstance, cloud.instanceID), true
		s.instanceID = cloud.instanceID
		s.why = "instance-id of " + cloud.datasource
	case cloud.expected:
		s.why = "unknown: " + cloud.why
	case strings.HasPrefix(bound.primary, kindInstance):
		s.why = "unknown: enrolled under an instance-id, and " + cloud.why
	case machineID == "":
		s.why = "unknown: " + target.MachineID + " is empty, and " + cloud.why
	default:
		s.primary, s.known = primary(kindMachine, machineID), true
		s.why = "machine-id, since " + cloud.why
	}
	return s, nil
}

// isLive is replaced by tests that play a running machine in a folder.
var isLive = (*target.Target).Live

// runs tells whether this is the machine itself, in a boot of its own. In a
// rescue system the disk may as well be the root of a chroot: neither systemd nor
// cloud-init has anything under /run there, and the hardware is another machine's.
func runs(t *target.Target) bool {
	return isLive(t) && (t.IsDir(target.SystemdRunDir) || t.IsDir(target.CloudRunDir) || !t.Exists(target.CloudInit))
}

// A cloudFact is what cloud-init says of this boot.
type cloudFact struct {
	instanceID string // of a real datasource, else empty
	datasource string
	expected   bool // cloud-init is on, so it should have named the instance
	why        string
}

// cloudInit reads what cloud-init left. On a live machine only files under
// /run count, since those under /var/lib are kept from the last boot when a
// datasource is not reached; offline, the last boot is all there is.
func cloudInit(t *target.Target) (cloudFact, error) {
	if installed, err := exists(t, target.CloudInit); err != nil {
		return cloudFact{}, err
	} else if !installed {
		return cloudFact{why: "cloud-init is not installed"}, nil
	}
	if runs(t) {
		for _, f := range []string{target.CloudDisabled, target.CloudRunDisabled} {
			if disabled, err := exists(t, f); err != nil {
				return cloudFact{}, err
			} else if disabled {
				return cloudFact{why: "cloud-init is disabled (" + f + ")"}, nil
			}
		}
	}
	idFile := target.CloudRunInstanceID
	if !runs(t) {
		idFile = target.CloudDataInstanceID
	}
	id, err := readWord(t, idFile)
	if err != nil {
		return cloudFact{}, err
	}
	ds, err := readWord(t, target.CloudDatasource)
	if err != nil {
		return cloudFact{}, err
	}
	ds, _, _ = strings.Cut(ds, ":")
	switch {
	case id == "":
		return cloudFact{expected: runs(t), why: "cloud-init has named no instance (" + idFile + " is missing or empty)"}, nil
	case ds == "DataSourceNone" || id == "iid-datasource-none":
		return cloudFact{expected: true, why: "cloud-init found no datasource"}, nil
	}
	if ds == "" {
		ds = "cloud-init"
	}
	return cloudFact{instanceID: id, datasource: ds}, nil
}

// readWord returns a one-line file's text, empty if the file is missing.
func readWord(t *target.Target, name string) (string, error) {
	b, err := t.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// believableUUID returns the canonical form of a DMI UUID that tells one
// machine from another. SMBIOS up to 2.5 and some hypervisors give the first
// three groups in the other byte order after an upgrade, so the smaller of
// both readings is the canonical one (SMBIOS 3.7, 7.2.1).
func believableUUID(s string) (string, bool) {
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.ToLower(s), "-", ""))
	if err != nil || len(raw) != 16 {
		return "", false
	}
	seen := map[byte]bool{}
	for _, b := range raw {
		seen[b] = true
	}
	// All zero, all ones, and the counting placeholders that board makers
	// leave ("03000200-0400-0500-0006-000700080009", "12345678-…") name nothing.
	if len(seen) < 4 || strings.EqualFold(s, "03000200-0400-0500-0006-000700080009") ||
		strings.HasPrefix(s, "12345678-1234-") {
		return "", false
	}
	swapped := append([]byte(nil), raw...)
	for _, r := range [][2]int{{0, 3}, {1, 2}, {4, 5}, {6, 7}} {
		swapped[r[0]], swapped[r[1]] = swapped[r[1]], swapped[r[0]]
	}
	a, b := hex.EncodeToString(raw), hex.EncodeToString(swapped)
	return min(a, b), true
}
