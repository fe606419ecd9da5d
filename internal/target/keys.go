// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A LoginKey is a public key with which a user may log in.
type LoginKey struct {
	Type   string // as in authorized_keys: ssh-ed25519
	Blob   string // base64 of the public key, as in authorized_keys
	Forced bool   // the line forces a command, as cloud-init's disable_root does: no login
}

// LoginKeys reads the user's authorized_keys and authorized_keys2 under
// ~/.ssh, the files that sshd reads by default (sshd_config(5),
// AuthorizedKeysFile). Files that sshd would not trust, since another user
// owns them, are passed over, as are files of root's that a link of the user's
// leads to, lines that are no key, and the keys of certificate authorities,
// which are not the user's own.
func (t *Target) LoginKeys(u User) ([]LoginKey, error) {
	var keys []LoginKey
	var errs []error
	for _, f := range AuthorizedKeys {
		b, err := t.readOwned(u, f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys = append(keys, parseAuthorizedKeys(b)...)
	}
	return keys, errors.Join(errs...)
}

// readOwned reads a file below the user's home; nil where there is none that
// may be trusted.
func (t *Target) readOwned(u User, name string) ([]byte, error) {
	if !strings.HasPrefix(u.Home, "/") {
		return nil, nil
	}
	home, err := t.Resolve(u.Home)
	if err != nil {
		return nil, err
	}
	real, err := t.Resolve(path.Join(home, name))
	if err != nil {
		return nil, ignoreMissing(err)
	}
	// A user can lead this anywhere, and some devices are set off by being opened.
	f, err := t.OpenRegular(real, os.O_RDONLY)
	if errors.Is(err, ErrNotRegular) {
		return nil, nil
	}
	if err != nil {
		return nil, ignoreMissing(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	uid, _, ok := owner(fi)
	linked := real != path.Join(home, name)
	if !ok || uid != u.UID && (uid != 0 || linked) || fi.Mode()&0o022 != 0 {
		return nil, nil
	}
	return ReadAll(real, f)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func parseAuthorizedKeys(b []byte) []LoginKey {
	var keys []LoginKey
	seen := map[LoginKey]bool{} // a search of the list would be quadratic, and users write these files
	for line := range strings.Lines(string(b)) {
		pub, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			continue
		}
		k := LoginKey{Type: pub.Type(), Blob: base64.StdEncoding.EncodeToString(pub.Marshal())}
		ca := false
		for _, o := range options {
			o = strings.ToLower(o)
			k.Forced = k.Forced || strings.HasPrefix(o, "command=")
			ca = ca || o == "cert-authority"
		}
		if !ca && !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	return keys
}

// HostKeys lists the public host keys of /etc/ssh as "<type> <base64>", in the
// order of their file names.
func (t *Target) HostKeys() ([]string, error) {
	es, err := t.ReadDir(SSHDir)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var keys []string
	for _, e := range es {
		if ok, _ := path.Match(hostKeyPattern, e.Name()); !ok {
			continue
		}
		b, err := t.ReadFile(path.Join(SSHDir, e.Name()))
		if IsFault(err) {
			return nil, err
		}
		if err != nil {
			continue // a dangling link, say: no key that sshd would show
		}
		pub, _, _, _, err := ssh.ParseAuthorizedKey(b)
		if err != nil {
			continue // half-written or foreign: likewise
		}
		keys = append(keys, pub.Type()+" "+base64.StdEncoding.EncodeToString(pub.Marshal()))
	}
	return keys, nil
}
