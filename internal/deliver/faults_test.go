// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package deliver_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// What can go wrong on the way of an envelope. Each channel says of each fault
// how a test makes it, or why it cannot happen there.
const (
	refused        = "connection refused"
	unreachable    = "no route to the other end"
	noName         = "name not found"
	wrongName      = "certificate for another name"
	expired        = "certificate expired"
	unknownCA      = "certificate of an unknown CA"
	redirected     = "redirect to another host"
	clientError    = "answer 4xx"
	serverError    = "answer 5xx"
	tooMany        = "answer 429 with Retry-After"
	endlessAnswer  = "an answer that never ends"
	hanging        = "accepts and hangs"
	cutFirst       = "cut in the first quarter of the body"
	cutSecond      = "cut in the second quarter"
	cutThird       = "cut in the third quarter"
	cutLast        = "cut in the last quarter"
	cutSuccess     = "cut after the success line was sent"
	wrongClock     = "clock wrong by 10 minutes"
	diskFull       = "disk full when the attempt is recorded"
	diskFillsUp    = "disk full when the receipt is written"
	otherEndAbsent = "host's end absent"
	notReading     = "host's end never reads"
	garbage        = "host's end answers garbage"
	consoleBusy    = "console busy"
)

var allFaults = []string{
	refused, unreachable, noName, wrongName, expired, unknownCA, redirected, clientError, serverError, tooMany, endlessAnswer, hanging,
	cutFirst, cutSecond, cutThird, cutLast, cutSuccess, wrongClock, diskFull, diskFillsUp, otherEndAbsent, notReading, garbage, consoleBusy,
}

// A fault is one that a test can make, or the reason why there is none.
type fault struct {
	make  func(*scene)
	says  error // what the status shows meanwhile; nil: nothing can be written
	never string
}

// errInterrupted is what the record of an attempt says until it has ended.
var errInterrupted = errors.New("interrupted")

const (
	noNetwork = "no network is on the way"
	noAnswer  = "nobody answers: the channel is offered"
	noOther   = "there is no other end: it is a file of this machine"
	noTLS     = "metadata come by plain HTTP, from the host itself"
	noVisitor = "it is a text of this machine, which sshd shows to whoever comes"
)

// faultTables are the faults by the channel's type.
var faultTables = map[string]map[string]fault{
	policy.ChannelHTTP: {
		refused:        {make: webRefuses, says: deliver.ErrRefused},
		unreachable:    {make: func(s *scene) { s.wire.Fail = "unreachable" }, says: deliver.ErrUnreachable},
		noName:         {make: func(s *scene) { s.wire.Fail, s.wire.Addr = "dns", s.closedPort() }, says: deliver.ErrDNS},
		wrongName:      {make: webHasName("other.example"), says: deliver.ErrCertName},
		expired:        {make: webHasExpired, says: deliver.ErrCertTime},
		unknownCA:      {make: webHasOtherCA, says: deliver.ErrCertCA},
		redirected:     {make: webAnswers(307, "https://other.example/"), says: deliver.ErrElsewhere},
		clientError:    {make: webAnswers(404, ""), says: deliver.ErrStatus},
		serverError:    {make: webAnswers(500, ""), says: deliver.ErrStatus},
		tooMany:        {make: webAnswers(429, "7200"), says: deliver.ErrStatus},
		endlessAnswer:  {make: webNeverEnds, says: deliver.ErrStatus},
		hanging:        {make: webHangs, says: deliver.ErrTimeout},
		cutFirst:       {make: webCuts(1), says: deliver.ErrCut},
		cutSecond:      {make: webCuts(2), says: deliver.ErrCut},
		cutThird:       {make: webCuts(3), says: deliver.ErrCut},
		cutLast:        {make: webCuts(4), says: deliver.ErrCut},
		cutSuccess:     {make: webCutsAnswer, says: deliver.ErrCut},
		wrongClock:     {make: func(s *scene) { s.wire.Clock = -10 * time.Minute; webHasNewCertificate(s) }, says: deliver.ErrCertTime},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: webFillsDisk, says: errInterrupted},
		otherEndAbsent: {never: "a server that is not there refuses or cannot be reached: see those"},
		notReading:     {make: webHangs, says: deliver.ErrTimeout},
		garbage:        {make: webBabbles, says: deliver.ErrNotHTTP},
		consoleBusy:    {never: "no console is on the way"},
	},
	policy.ChannelOpenStack: {
		refused:        {make: webRefuses, says: deliver.ErrRefused},
		unreachable:    {make: func(s *scene) { s.wire.Fail = "unreachable" }, says: deliver.ErrUnreachable},
		noName:         {never: "the address is a number"},
		wrongName:      {never: noTLS},
		expired:        {never: noTLS},
		unknownCA:      {never: noTLS},
		redirected:     {make: webAnswers(307, "http://other.example/"), says: deliver.ErrStatus},
		clientError:    {make: webAnswers(400, ""), says: deliver.ErrStatus},
		serverError:    {make: webAnswers(500, ""), says: deliver.ErrStatus},
		tooMany:        {make: webAnswers(429, "7200"), says: deliver.ErrStatus},
		endlessAnswer:  {make: webNeverEnds, says: deliver.ErrStatus},
		hanging:        {make: webHangs, says: deliver.ErrTimeout},
		cutFirst:       {make: webCuts(1), says: deliver.ErrCut},
		cutSecond:      {make: webCuts(2), says: deliver.ErrCut},
		cutThird:       {make: webCuts(3), says: deliver.ErrCut},
		cutLast:        {make: webCuts(4), says: deliver.ErrCut},
		cutSuccess:     {make: webCutsAnswer, says: deliver.ErrCut},
		wrongClock:     {never: "nothing on the way looks at a clock"},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: webFillsDisk, says: errInterrupted},
		otherEndAbsent: {make: webAnswers(404, ""), says: deliver.ErrNoPassword},
		notReading:     {make: webHangs, says: deliver.ErrTimeout},
		garbage:        {make: webBabbles, says: deliver.ErrNotHTTP},
		consoleBusy:    {never: "no console is on the way"},
	},
	policy.ChannelVirtio: {
		refused: {never: noNetwork}, unreachable: {never: noNetwork}, noName: {never: noNetwork},
		wrongName: {never: noNetwork}, expired: {never: noNetwork}, unknownCA: {never: noNetwork}, redirected: {never: noNetwork},
		clientError:    {make: hostAnswers("ERR age\n"), says: frame.ErrRefused},
		serverError:    {make: hostAnswers("ERR store\n"), says: frame.ErrRefused},
		tooMany:        {never: "the host has no word for it, and one machine behind each port"},
		endlessAnswer:  {make: hostNeverEnds, says: frame.ErrAnswer},
		hanging:        {make: hostHangs, says: deliver.ErrNoAnswer},
		cutFirst:       {make: hostCloses(1), says: deliver.ErrWentAway},
		cutSecond:      {make: hostCloses(2), says: deliver.ErrWentAway},
		cutThird:       {make: hostCloses(3), says: deliver.ErrWentAway},
		cutLast:        {make: hostCloses(4), says: deliver.ErrWentAway},
		cutSuccess:     {make: hostCutsAnswer, says: deliver.ErrWentAway},
		wrongClock:     {never: "nothing on the way looks at a clock"},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: hostFillsDisk, says: errInterrupted},
		otherEndAbsent: {make: func(s *scene) { s.wire.Fail = "no host" }, says: deliver.ErrNoHost},
		notReading:     {make: hostNeverReads, says: deliver.ErrNotTaken},
		garbage:        {make: hostAnswers("login: \n"), says: frame.ErrAnswer},
		consoleBusy:    {never: "no console is on the way"},
	},
	policy.ChannelConsole: {
		refused: {never: noNetwork}, unreachable: {never: noNetwork}, noName: {never: noNetwork},
		wrongName: {never: noNetwork}, expired: {never: noNetwork}, unknownCA: {never: noNetwork}, redirected: {never: noNetwork},
		clientError: {never: noAnswer}, serverError: {never: noAnswer}, tooMany: {never: noAnswer}, endlessAnswer: {never: noAnswer},
		cutSuccess: {never: noAnswer}, garbage: {never: noAnswer},
		hanging:        {make: hostNeverReads, says: deliver.ErrNotTaken},
		cutFirst:       {make: hostCloses(1), says: deliver.ErrWentAway},
		cutSecond:      {make: hostCloses(2), says: deliver.ErrWentAway},
		cutThird:       {make: hostCloses(3), says: deliver.ErrWentAway},
		cutLast:        {make: hostCloses(4), says: deliver.ErrWentAway},
		wrongClock:     {never: "nothing on the way looks at a clock"},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: hostFillsDisk, says: errInterrupted},
		otherEndAbsent: {make: func(s *scene) { s.wire.Fail = "no device" }, says: syscall.EIO},
		notReading:     {make: hostNeverReads, says: deliver.ErrNotTaken},
		consoleBusy:    {make: hostNeverReads, says: deliver.ErrNotTaken},
	},
	policy.ChannelFile: {
		refused: {never: noNetwork}, unreachable: {never: noNetwork}, noName: {never: noNetwork},
		wrongName: {never: noNetwork}, expired: {never: noNetwork}, unknownCA: {never: noNetwork}, redirected: {never: noNetwork},
		clientError: {never: noOther}, serverError: {never: noOther}, tooMany: {never: noOther}, endlessAnswer: {never: noOther}, hanging: {never: noOther},
		cutFirst: {never: noOther}, cutSecond: {never: noOther}, cutThird: {never: noOther}, cutLast: {never: noOther}, cutSuccess: {never: noOther},
		wrongClock:     {never: "nothing on the way looks at a clock"},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: (*scene).fillDiskOfChannel, says: syscall.ENOSPC},
		otherEndAbsent: {never: noOther}, notReading: {never: noOther}, garbage: {never: noOther}, consoleBusy: {never: noOther},
	},
	policy.ChannelSSHBanner: {
		refused: {never: noVisitor}, unreachable: {never: noVisitor}, noName: {never: noVisitor},
		wrongName: {never: noVisitor}, expired: {never: noVisitor}, unknownCA: {never: noVisitor}, redirected: {never: noVisitor},
		clientError: {never: noVisitor}, serverError: {never: noVisitor}, tooMany: {never: noVisitor}, endlessAnswer: {never: noVisitor}, hanging: {never: noVisitor},
		cutFirst: {never: noVisitor}, cutSecond: {never: noVisitor}, cutThird: {never: noVisitor}, cutLast: {never: noVisitor}, cutSuccess: {never: noVisitor},
		wrongClock:     {never: "nothing on the way looks at a clock"},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: (*scene).fillDiskOfChannel, says: syscall.ENOSPC},
		otherEndAbsent: {never: noVisitor}, notReading: {never: noVisitor}, garbage: {never: noVisitor}, consoleBusy: {never: noVisitor},
	},
}

// Every channel has a table, and every table every fault.
func TestFaultTables(t *testing.T) {
	for _, typ := range deliver.Types() {
		table, ok := faultTables[typ]
		if !ok {
			t.Errorf("channel %s has no table of faults", typ)
		}
		for _, name := range allFaults {
			f := table[name]
			if (f.make == nil) == (f.never == "") || f.make != nil && f.says == nil && name != diskFull {
				t.Errorf("channel %s, %s: make it and say what it is called, or say why it never happens", typ, name)
			}
		}
		for name := range table {
			if !slices.Contains(allFaults, name) {
				t.Errorf("channel %s: %q is no fault", typ, name)
			}
		}
	}
	for typ := range faultTables {
		if !slices.Contains(deliver.Types(), typ) {
			t.Errorf("%s is no channel", typ)
		}
		if ends[typ] == nil {
			t.Errorf("%s has no other end to test with", typ)
		}
	}
}

// TestFaults: while a fault lasts, the envelope stays, and one enrollment is
// live. When the fault is over, the envelope arrives.
func TestFaults(t *testing.T) {
	for typ, table := range faultTables {
		for name, f := range table {
			if f.make == nil {
				continue
			}
			t.Run(typ+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, typ)
				f.make(s)
				s.fails(f.says)
				s.over()
				s.arrives()
			})
		}
	}
}

// TestKilled: the same of an agent that is killed, with no fault at each step of an
// attempt, and with a fault when it has had its effect. (One after the other: a
// process that is about to begin has the locks of the others for a moment.)
func TestKilled(t *testing.T) {
	for typ, table := range faultTables {
		run := func(name, step string, make func(*scene)) {
			t.Run(typ+"/"+name+"/"+step, func(t *testing.T) {
				s := newScene(t, typ)
				make(s)
				s.killed(step, name == diskFull)
				s.over()
				s.arrives()
			})
		}
		for name, f := range table {
			if f.make != nil {
				run(name, "sent", f.make)
			}
		}
		for _, step := range []string{"recorded", "half", "sent"} {
			if step != "half" || ends[typ].half != nil { // a file is there as a whole, or not at all
				run("no fault", step, func(*scene) {})
			}
		}
	}
}
