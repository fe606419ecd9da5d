// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package deliver_test

import (
	"slices"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
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
	never string
}

const (
	noNetwork = "no network is on the way"
	noAnswer  = "nobody answers: the channel is offered"
	noOther   = "there is no other end: it is a file of this machine"
)

// faultTables are the faults by the channel's type.
var faultTables = map[string]map[string]fault{
	policy.ChannelHTTP: {
		refused:        {make: webRefuses},
		unreachable:    {make: func(s *scene) { s.wire.Fail = "unreachable" }},
		noName:         {make: func(s *scene) { s.wire.Fail, s.wire.Addr = "dns", s.closedPort() }},
		wrongName:      {make: webHasName("other.example")},
		expired:        {make: webHasExpired},
		unknownCA:      {make: webHasOtherCA},
		redirected:     {make: webAnswers(307, "https://other.example/")},
		clientError:    {make: webAnswers(404, "")},
		serverError:    {make: webAnswers(500, "")},
		tooMany:        {make: webAnswers(429, "7200")},
		endlessAnswer:  {make: webNeverEnds},
		hanging:        {make: webHangs},
		cutFirst:       {make: webCuts(1)},
		cutSecond:      {make: webCuts(2)},
		cutThird:       {make: webCuts(3)},
		cutLast:        {make: webCuts(4)},
		cutSuccess:     {make: webCutsAnswer},
		wrongClock:     {make: func(s *scene) { s.wire.Clock = -10 * time.Minute; webHasNewCertificate(s) }},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: webFillsDisk},
		otherEndAbsent: {never: "a server that is not there refuses or cannot be reached: see those"},
		notReading:     {make: webHangs},
		garbage:        {make: webBabbles},
		consoleBusy:    {never: "no console is on the way"},
	},
	policy.ChannelVirtio: {
		refused: {never: noNetwork}, unreachable: {never: noNetwork}, noName: {never: noNetwork},
		wrongName: {never: noNetwork}, expired: {never: noNetwork}, unknownCA: {never: noNetwork}, redirected: {never: noNetwork},
		clientError:    {make: hostAnswers("ERR age\n")},
		serverError:    {make: hostAnswers("ERR store\n")},
		tooMany:        {never: "the host has no word for it, and one machine behind each port"},
		endlessAnswer:  {make: hostNeverEnds},
		hanging:        {make: hostHangs},
		cutFirst:       {make: hostCloses(1)},
		cutSecond:      {make: hostCloses(2)},
		cutThird:       {make: hostCloses(3)},
		cutLast:        {make: hostCloses(4)},
		cutSuccess:     {make: hostCutsAnswer},
		wrongClock:     {never: "nothing on the way looks at a clock"},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: hostFillsDisk},
		otherEndAbsent: {make: func(s *scene) { s.wire.Fail = "no host" }},
		notReading:     {make: hostNeverReads},
		garbage:        {make: hostAnswers("login: \n")},
		consoleBusy:    {never: "no console is on the way"},
	},
	policy.ChannelConsole: {
		refused: {never: noNetwork}, unreachable: {never: noNetwork}, noName: {never: noNetwork},
		wrongName: {never: noNetwork}, expired: {never: noNetwork}, unknownCA: {never: noNetwork}, redirected: {never: noNetwork},
		clientError: {never: noAnswer}, serverError: {never: noAnswer}, tooMany: {never: noAnswer}, endlessAnswer: {never: noAnswer},
		cutSuccess: {never: noAnswer}, garbage: {never: noAnswer},
		hanging:        {make: hostNeverReads},
		cutFirst:       {make: hostCloses(1)},
		cutSecond:      {make: hostCloses(2)},
		cutThird:       {make: hostCloses(3)},
		cutLast:        {make: hostCloses(4)},
		wrongClock:     {never: "nothing on the way looks at a clock"},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: hostFillsDisk},
		otherEndAbsent: {make: func(s *scene) { s.wire.Fail = "no device" }},
		notReading:     {make: hostNeverReads},
		consoleBusy:    {make: hostNeverReads},
	},
	policy.ChannelFile: {
		refused: {never: noNetwork}, unreachable: {never: noNetwork}, noName: {never: noNetwork},
		wrongName: {never: noNetwork}, expired: {never: noNetwork}, unknownCA: {never: noNetwork}, redirected: {never: noNetwork},
		clientError: {never: noOther}, serverError: {never: noOther}, tooMany: {never: noOther}, endlessAnswer: {never: noOther}, hanging: {never: noOther},
		cutFirst: {never: noOther}, cutSecond: {never: noOther}, cutThird: {never: noOther}, cutLast: {never: noOther}, cutSuccess: {never: noOther},
		wrongClock:     {never: "nothing on the way looks at a clock"},
		diskFull:       {make: (*scene).fillDisk},
		diskFillsUp:    {make: (*scene).fillDiskOfChannel},
		otherEndAbsent: {never: noOther}, notReading: {never: noOther}, garbage: {never: noOther}, consoleBusy: {never: noOther},
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
			if f, ok := table[name]; ok && (f.make == nil) == (f.never == "") || !ok {
				t.Errorf("channel %s, %s: make it, or say why it never happens", typ, name)
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
				s.fails()
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
			if step != "half" || typ != policy.ChannelFile { // a file is there as a whole, or not at all
				run("no fault", step, func(*scene) {})
			}
		}
	}
}
