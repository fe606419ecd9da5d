// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// answers are those of each sshd about each login, as far as they are not as wanted.
type answers struct {
	logins []login
	wrong  []wrong
	failed []Finding
}

// A wrong answer is a setting and the logins that get it.
type wrong struct {
	keyword, got, want string
	logins             []connection
	units              []string
}

// ask asks one sshd about all logins.
func (a *answers) ask(ctx context.Context, s *sshd, want []setting) error {
	err := s.test(ctx)
	for _, l := range a.logins {
		var got map[string]string
		if err == nil {
			got, err = s.effective(ctx, l.connection)
		}
		if err != nil {
			a.refuse(s.unit, err)
			return ctx.Err()
		}
		for _, w := range weaknesses(l.connection, l.exempt, got, want) {
			a.add(w, s.unit)
		}
	}
	return ctx.Err()
}

// refuse adds an sshd that refuses its configuration. What several refuse is one
// finding.
func (a *answers) refuse(unit string, err error) {
	f := Finding{"sshd-test", target.SSHDConfig, err.Error(), "correct what sshd names", Critical}
	for i, other := range a.failed {
		if units, ok := strings.CutSuffix(other.What, ": "+f.What); ok {
			a.failed[i].What = units + ", " + unit + ": " + f.What
			return
		}
	}
	f.What = unit + ": " + f.What
	a.failed = append(a.failed, f)
}

func (a *answers) add(w weakness, unit string) {
	i := slices.IndexFunc(a.wrong, func(o wrong) bool { return o.keyword == w.keyword && o.got == w.got && o.want == w.want })
	if i < 0 {
		i = len(a.wrong)
		a.wrong = append(a.wrong, wrong{keyword: w.keyword, got: w.got, want: w.want})
	}
	o := &a.wrong[i]
	if !slices.Contains(o.logins, w.connection) {
		o.logins = append(o.logins, w.connection)
	}
	if !slices.Contains(o.units, unit) {
		o.units = append(o.units, unit)
	}
}

// findings makes one finding of all settings that the same logins get: a line of a file
// changes them for all users, and a Match block for its own.
func (a *answers) findings() []Finding {
	fs := a.failed
	for len(a.wrong) > 0 {
		first := a.wrong[0]
		var settings, keywords []string
		a.wrong = slices.DeleteFunc(a.wrong, func(w wrong) bool {
			same := slices.Equal(w.logins, first.logins) && slices.Equal(w.units, first.units)
			if same {
				settings = append(settings, fmt.Sprintf("%s is %q, want %q", w.keyword, w.got, w.want))
				keywords = append(keywords, w.keyword)
			}
			return same
		})
		fs = append(fs, Finding{"sshd-effective", target.SSHDConfig,
			strings.Join(first.units, ", ") + ": " + strings.Join(settings, "; ") + ": for " + a.names(first.logins),
			"find the line with: grep -rniE '" + strings.Join(keywords, "|") + "' /etc/ssh /etc/default /etc/sysconfig; remove it, or " + bakeAgain,
			Critical})
	}
	return fs
}

// names are the users of logins, and the addresses where not all of them are meant.
func (a *answers) names(ls []connection) string {
	if len(ls) == len(a.logins) {
		return "all users"
	}
	var users, from []string
	all := 0 // the logins of these users
	for _, l := range ls {
		name := fmt.Sprintf("%q", l.user)
		if l.user == nobody {
			name = "all names without an account"
		}
		if !slices.Contains(users, name) {
			users = append(users, name)
			for _, other := range a.logins {
				if other.user == l.user {
					all++
				}
			}
		}
		if addr := l.addr.String(); !slices.Contains(from, addr) {
			from = append(from, addr)
		}
	}
	if all == len(ls) {
		return firstOf(users)
	}
	return firstOf(users) + " from " + firstOf(from)
}
