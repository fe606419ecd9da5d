// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// loginKeyFiles are the authorized_keys of all accounts, but for those that the
// policy names: what the image gives them is meant to be there. The build's
// account counts after it has gone, too.
func loginKeyFiles(t *target.Target, p *policy.Policy) ([]string, error) {
	files, _, err := allLoginKeys(t, p)
	return files, err
}

// kept are the login keys that stay, and why, in words.
func (c *cleaner) kept() ([]string, error) {
	_, stay, err := allLoginKeys(c.t, c.policy)
	var words []string
	for _, name := range slices.Sorted(maps.Keys(stay)) {
		words = append(words, name+" ("+stay[name]+")")
		fmt.Fprintf(c.log, "clean: WARNING: login keys stay in the image: %s (%s)\n", name, stay[name])
	}
	// They are no files of the build, and the accounts that they let in need a code: no leak.
	for keyword, name := range map[string]string{"authorizedkeyscommand": "AuthorizedKeysCommand", "trustedusercakeys": "TrustedUserCAKeys"} {
		said, errWords := sshdWords(c.t, keyword)
		err = errors.Join(err, errWords)
		if i := slices.IndexFunc(said, path.IsAbs); i >= 0 { // not "none"
			words = append(words, said[i]+" ("+name+")")
			fmt.Fprintf(c.log, "clean: WARNING: every server of this image accepts keys by %s %s\n", name, said[i])
		}
	}
	slices.Sort(words)
	return words, err
}

// allLoginKeys are the files that go, and those that stay: file → where the policy
// names its account.
func allLoginKeys(t *target.Target, p *policy.Policy) (files []string, stay map[string]string, err error) {
	users, err := t.Users()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	patterns, err := keyPatterns(t)
	if err != nil {
		return nil, nil, err
	}
	if b := p.Clean.BuildUser; b != "" && !slices.ContainsFunc(users, func(u target.User) bool { return u.Name == b }) {
		users = append(users, target.User{Name: b, UID: -1, Home: path.Join(target.HomeDir, b)})
	}
	stay = map[string]string{} // a file that two share is also a named one's
	for _, u := range users {
		why, err := named(t, p, u)
		if err != nil {
			return nil, nil, err
		}
		for _, pattern := range patterns {
			name := keyFile(pattern, u)
			switch {
			case name == "" || !t.IsRegular(name):
			case why != "":
				stay[name] = why
			case !slices.Contains(files, name):
				files = append(files, name)
			}
		}
	}
	return slices.DeleteFunc(files, func(name string) bool { return stay[name] != "" }), stay, nil
}

// keyPatterns are the values of AuthorizedKeysFile in sshd_config(5), in Match
// blocks too, and the default.
func keyPatterns(t *target.Target) ([]string, error) {
	patterns := slices.Clone(target.AuthorizedKeys)
	said, err := sshdWords(t, "authorizedkeysfile")
	for _, pattern := range said {
		if pattern != "none" && !slices.Contains(patterns, pattern) {
			patterns = append(patterns, pattern)
		}
	}
	return patterns, err
}

// hostKeyFiles are what sshd is told to take for host keys, wherever it is.
func hostKeyFiles(t *target.Target) ([]string, error) {
	said, err := sshdWords(t, "hostkey")
	return slices.DeleteFunc(said, func(name string) bool { return !path.IsAbs(name) || !t.IsRegular(name) }), err
}

// sshdWords are the arguments of a keyword in sshd_config(5), its drop-ins and
// whatever else they include, wherever it stands in them.
func sshdWords(t *target.Target, keyword string) ([]string, error) {
	var words []string
	files, err := glob(t, target.SSHDDropInDir+"/*.conf")
	if err != nil {
		return nil, err
	}
	files = append(files, target.SSHDConfig)
	for i := 0; i < len(files); i++ {
		b, err := t.ReadFile(files[i])
		if errors.Is(err, target.ErrNotRegular) {
			continue // a link to /dev/null, say
		}
		if missingIsFine(err) != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			switch said, args := target.SSHDDirective(line); said {
			case keyword:
				words = append(words, args...)
			case "include":
				for _, pattern := range args {
					for _, name := range t.SSHDIncluded(pattern) {
						if !slices.Contains(files, name) {
							files = append(files, name)
						}
					}
				}
			}
		}
	}
	return words, nil
}

// keyFile is the file that a pattern means for a user; empty: none.
func keyFile(pattern string, u target.User) string {
	name := strings.NewReplacer("%%", "%", "%h", u.Home, "%u", u.Name, "%U", strconv.Itoa(u.UID)).Replace(pattern)
	if !path.IsAbs(name) {
		if !path.IsAbs(u.Home) {
			return ""
		}
		name = path.Join(u.Home, name)
	}
	return path.Clean(name)
}

// foreignSecrets are the state files that the PAM module keeps in home
// directories, where the manual guides have it so.
func foreignSecrets(t *target.Target) ([]string, error) {
	users, err := t.Users()
	if err != nil {
		return nil, missingIsFine(err)
	}
	var files []string
	for _, u := range users {
		if !path.IsAbs(u.Home) {
			continue
		}
		for _, pattern := range []string{".google_authenticator*", ".ssh/.google_authenticator*"} {
			names, err := glob(t, path.Join(u.Home, pattern))
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if !slices.Contains(files, name) {
					files = append(files, name)
				}
			}
		}
	}
	return files, nil
}
