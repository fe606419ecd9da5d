// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import "github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"

// A trial is one row before it is run.
type trial struct {
	name   string
	role   string // of the account
	steps  []step
	code   answer
	expect string
	from   string // a network of exempt_from; empty: loopback
	bare   bool   // sshd without the options that its unit gives
	needed func(policy.SSHD) bool
}

// An answer is what is given for a code.
type answer int

const (
	goodCode answer = iota // the current one; the same for all rows of an account
	wrongCode
	backupCode
	passwordAsCode
)

// Accounts of the matrix. Each has a secret of its own, since the PAM module
// takes three attempts in thirty seconds, good or bad (rate_limit).
const (
	roleCode     = "code"
	roleBackup   = "backup"
	roleWrong    = "wrong"
	rolePassword = "password" // has a password, and rightly typed it must not help
	roleBare     = "bare"
	roleNobody   = "unenrolled" // has no secret
	roleRoot     = "root"
	roleGroup    = "group" // member of a group of exempt_groups
	roleUser     = "user"  // of exempt_users
	roleFrom     = "from"
)

var (
	codeThen  = []step{withKey, withCode}
	refusedAt = dialogue(wantsKey, keyThen, asksCode, "code refused", out)
	passedBy  = dialogue(wantsKey, keyThen, asksCode, in)
	keyOnly   = dialogue(wantsKey, keyThen, out)
	noKey     = dialogue(wantsKey, "code refused", out)
	exempted  = dialogue(wantsKey, in)
)

func rootEnters(s policy.SSHD) bool { return s.RootLogin != policy.RootDeny }
func rootDenied(s policy.SSHD) bool { return s.RootLogin == policy.RootDeny }

// lanes are the rows. Those of a lane run one after the other, and lanes beside
// each other: no two rows of an account are in different lanes, because logins
// of one account that overlap make each other fail (the PAM module sees that its
// file was changed).
var lanes = [][]trial{
	{
		{name: "key and code", role: roleCode, steps: codeThen, expect: passedBy},
		{name: "same code again", role: roleCode, steps: codeThen, expect: refusedAt},
	},
	{
		{name: "backup code", role: roleBackup, steps: codeThen, code: backupCode, expect: passedBy},
		{name: "same backup code again", role: roleBackup, steps: codeThen, code: backupCode, expect: refusedAt},
	},
	{
		{name: "key alone", role: roleWrong, steps: []step{withKey}, expect: keyOnly},
		{name: "code alone", role: roleWrong, steps: []step{withCode}, expect: noKey},
		{name: "wrong code", role: roleWrong, steps: codeThen, code: wrongCode, expect: refusedAt},
	},
	{
		{name: "password alone", role: rolePassword, steps: []step{withPassword}, expect: dialogue(wantsKey, "password refused", out)},
		{name: "key and password", role: rolePassword, steps: []step{withKey, withPassword},
			expect: dialogue(wantsKey, keyThen, "password refused", out)},
		{name: "password for a code", role: rolePassword, steps: codeThen, code: passwordAsCode, expect: refusedAt},
	},
	{
		{name: "unenrolled user", role: roleNobody, steps: codeThen, expect: refusedAt},
		{name: "unenrolled user, key alone", role: roleNobody, steps: []step{withKey}, expect: keyOnly},
	},
	{
		{name: "root, key alone", role: roleRoot, steps: []step{withKey}, expect: keyOnly, needed: rootEnters},
		{name: "root, wrong code", role: roleRoot, steps: codeThen, code: wrongCode, expect: refusedAt, needed: rootEnters},
		{name: "root, key and code", role: roleRoot, steps: codeThen, expect: passedBy, needed: rootEnters},
		{name: "root, key alone", role: roleRoot, steps: []step{withKey}, expect: dialogue(wantsKey, keyDenied, out), needed: rootDenied},
	},
	{
		{name: "key alone, without the unit's options", role: roleBare, steps: []step{withKey}, expect: keyOnly, bare: true},
		{name: "key and code, without the unit's options", role: roleBare, steps: codeThen, expect: passedBy, bare: true},
	},
}

// exemptions are the rows of a policy that has some: there the key alone is all
// that is wanted.
func exemptions(s policy.SSHD) [][]trial {
	var lanes [][]trial
	key := []step{withKey}
	for _, g := range s.ExemptGroups {
		lanes = append(lanes, []trial{{name: "exempt group " + g, role: roleGroup + " " + g, steps: key, expect: exempted}})
	}
	for _, u := range s.ExemptUsers {
		lanes = append(lanes, []trial{{name: "exempt user " + u, role: roleUser + " " + u, steps: key, expect: exempted}})
	}
	for _, n := range s.ExemptFrom {
		lanes = append(lanes, []trial{{name: "exempt from " + n, role: roleFrom, steps: key, expect: exempted, from: n}})
	}
	return lanes
}
