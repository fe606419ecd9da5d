// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

// What the project owns on a machine.
const (
	AgentPath      = "/usr/local/sbin/totp-agent"
	PolicyDir      = "/etc/totp-agent"
	ImagePolicy    = PolicyDir + "/image.yaml"
	VendorPolicy   = CloudInstance + "/totp-vendor.yaml"
	InstancePolicy = CloudInstance + "/totp-instance.yaml"
	VendorModule   = CloudInstance + "/totp-vendor-module.yaml"   // what cloud-init's module has handed over
	InstanceModule = CloudInstance + "/totp-instance-module.yaml" // likewise

	Etc       = "/etc"
	HomeDir   = "/home"
	VarLib    = "/var/lib"
	StateDir  = VarLib + "/totp-agent"
	Report    = StateDir + "/report.json"
	Identity  = StateDir + "/identity.json"
	Outbox    = StateDir + "/outbox"
	Staged    = Outbox + "/staged"
	Ready     = Outbox + "/ready"
	Receipts  = StateDir + "/receipts"
	CleanMark = StateDir + "/clean.json" // an image is to be cleaned at its shutdown, or its first boot
	Envelopes = StateDir + "/envelopes"  // the file channel
	RunDir    = "/run/totp-agent"
	Notice    = RunDir + "/notice"
	Status    = RunDir + "/status.json" // on /run: it can be written when the disk is full, and does not outlive its boot

	Watch = RunDir + "/logins.json" // what totp-logins.service has seen of refused tries in this boot

	// NoticeConf is included by sshd where it exists, and shows Notice or Banner as
	// sshd's banner.
	NoticeConf = RunDir + "/sshd-notice.conf"

	// LoginSums has the hashes of our files that decide about a login.
	LoginSums = StateDir + "/login-files"

	// ClosedMark is there while SSH is closed, also across boots.
	ClosedMark = StateDir + "/closed"

	// ClosedConf is included by sshd while a login without a code cannot be ruled
	// out. It denies every user, and shows ClosedBanner.
	ClosedConf   = RunDir + "/sshd-closed.conf"
	ClosedBanner = RunDir + "/closed"
	ClosedUnit   = RunDir + "/closed-unit" // sshd itself was stopped, and is to be started again

	// The channel ssh-banner: what sshd shows, made of the envelopes beside it and
	// of what it would have shown otherwise. sshd reads Banner at each connection.
	BannerDir = RunDir + "/banner"
	Banner    = BannerDir + "/text"
	BannerOwn = BannerDir + "/own"

	// BannerLock is a file: other users can open the directory, and so lock it.
	BannerLock = BannerDir + "/lock"

	// SendPath is where totp-deliver.service reaches the process that speaks to the
	// network, totp-send@.service.
	SendDir  = "/run/totp-deliver"
	SendPath = SendDir + "/send"
)

// The login path.
const (
	PAMStateDir = VarLib + "/google-authenticator"
	PAMDir      = "/etc/pam.d"
	PAMService  = PAMDir + "/sshd"
	PAMModule   = "pam_google_authenticator.so"
	PAMTally    = "pam_faillock.so"
	PAMTallyDir = "/run/faillock-sshd" // its counters, a file for each user

	// PAMCopy is a copy of PAMService as it was baked. Linux-PAM itself reads it
	// where PAMService is missing, instead of the service "other".
	PAMVendorDir = "/usr/lib/pam.d"
	PAMCopy      = PAMVendorDir + "/sshd"
	PAMReplaced  = StateDir + "/pam.d-sshd.replaced" // what the last repair has put aside

	SSHDir        = "/etc/ssh"
	SSHDConfig    = SSHDir + "/sshd_config"
	Moduli        = SSHDir + "/moduli"
	SSHDDropInDir = SSHDir + "/sshd_config.d"
	SSHDDropIn    = SSHDDropInDir + "/00-00-totp.conf"
	SSHDHostKeys  = SSHDDropInDir + "/00-01-totp-hostkeys.conf"

	// The unit starts sshd with SSHDMain, which includes SSHDLogin, a copy of
	// SSHDDropIn, and then SSHDConfig. Tools that own the directory of drop-ins remove
	// what they do not know there, so both are above it. They are beside the host
	// keys, without which sshd does not start either.
	SSHDMain  = SSHDir + "/sshd_totp.conf"
	SSHDLogin = SSHDir + "/sshd_totp_login.conf"

	SSHDRunDir = "/run/sshd" // sshd's privilege separation directory

	hostKeyPattern = "ssh_host_*_key.pub"
)

// AuthorizedKeys are sshd's default files, below the home directory.
var AuthorizedKeys = []string{".ssh/authorized_keys", ".ssh/authorized_keys2"}

// CABundles are the certificates that a system trusts, where Go looks for them:
// Debian's, and Red Hat's.
var CABundles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"}

// PAMModuleDirs are where Linux-PAM looks for its modules, by architecture in
// Go's words.
var PAMModuleDirs = map[string][]string{
	"amd64": {"/lib/x86_64-linux-gnu/security", "/lib64/security", "/lib/security"},
	"arm64": {"/lib/aarch64-linux-gnu/security", "/lib64/security", "/lib/security"},
}

// systemd's directories.
const (
	SystemdUnitDir   = "/etc/systemd/system"
	SystemdVendorDir = "/lib/systemd/system"
	SystemdPresetDir = "/etc/systemd/system-preset"
	SystemdRunDir    = "/run/systemd/system" // there while systemd runs the machine
)

// Units.
const (
	AgentService   = "totp-agent.service"
	DeliverService = "totp-deliver.service"
	DeliverTimer   = "totp-deliver.timer"
	SendService    = "totp-send@.service"
	SendSocket     = "totp-send.socket"
	LoginsService  = "totp-logins.service"
	LoginsPath     = "totp-logins.path"
	RepairService  = "totp-repair.service"
	RepairPath     = "totp-repair.path"
	RecheckService = "totp-recheck.service"
	CleanService   = "totp-clean.service"
	HostKeyService = "totp-hostkeys.service"
	ModuleService  = "totp-module.service"
)

// What the machine says about itself.
const (
	Passwd          = "/etc/passwd"
	PasswdBackup    = "/etc/passwd-" // by useradd(8) and its kin
	Shadow          = "/etc/shadow"
	GShadow         = "/etc/gshadow"
	Group           = "/etc/group"
	Shell           = "/bin/sh"
	NoLogin         = "/etc/nologin"
	NSSwitch        = "/etc/nsswitch.conf"
	DebianVersion   = "/etc/debian_version" // of Debian and its derivatives
	OSRelease       = "/etc/os-release"
	OSReleaseVendor = "/usr/lib/os-release"
	HostnameFile    = "/etc/hostname"
	MachineID       = "/etc/machine-id"
	DMIProductUUID  = "/sys/class/dmi/id/product_uuid"
	DMISysVendor    = "/sys/class/dmi/id/sys_vendor"
	VirtioPorts     = "/sys/class/virtio-ports"
	Console         = "/dev/console"
	ConsoleActive   = "/sys/class/tty/console/active"
)

// cloud-init's files.
const (
	CloudDir            = VarLib + "/cloud"
	CloudInstance       = CloudDir + "/instance" // a link to CloudInstances/ID
	CloudInstances      = CloudDir + "/instances"
	CloudDataInstanceID = CloudDir + "/data/instance-id"
	CloudRunDir         = "/run/cloud-init"
	CloudRunInstanceID  = CloudRunDir + "/.instance-id"
	CloudResult         = CloudRunDir + "/result.json"
	CloudStatus         = CloudRunDir + "/status.json"
	CloudInstanceData   = CloudRunDir + "/instance-data.json"
	CloudInit           = "/usr/bin/cloud-init"
	CloudDisabled       = "/etc/cloud/cloud-init.disabled" // the administrator's switch
	CloudRunDisabled    = CloudRunDir + "/disabled"        // this boot's decision
	CloudDatasource     = CloudInstance + "/datasource"
	CloudConfig         = CloudInstance + "/cloud-config.txt"         // user-data's, merged
	CloudVendorConfig   = CloudInstance + "/vendor-cloud-config.txt"  // vendor-data's, merged
	CloudModule         = "/usr/lib/python3/dist-packages/cc_totp.py" // ours
	CloudSettings       = "/etc/cloud/cloud.cfg"
	CloudSettingsDir    = CloudSettings + ".d"
	CloudModuleList     = CloudSettingsDir + "/99-totp.cfg" // names our module
)

// SELinux and crypto-policies(7).
const (
	SELinuxEnforce     = "/sys/fs/selinux/enforce"
	SSHDRunType        = "sshd_var_run_t" // the type of sshd's own files under /run
	CryptoPolicyState  = "/etc/crypto-policies/state/current"
	CryptoPolicyConfig = "/etc/crypto-policies/config"
)

// Firewalls.
const (
	UFWDir       = "/etc/ufw"
	UFWDefaults  = "/etc/default/ufw"
	FirewalldDir = "/etc/firewalld"
	NftablesConf = "/etc/nftables.conf"
)

// Commands.
const (
	UFW                = "/usr/sbin/ufw"
	FirewallCmd        = "/usr/bin/firewall-cmd"
	FirewallOfflineCmd = "/usr/bin/firewall-offline-cmd"

	SSHD          = "/usr/sbin/sshd"
	SSH           = "/usr/bin/ssh"
	SSHKeygen     = "/usr/bin/ssh-keygen"
	AptGet        = "/usr/bin/apt-get"
	Python        = "/usr/bin/python3"
	DpkgQuery     = "/usr/bin/dpkg-query"
	DNF           = "/usr/bin/dnf"
	RPM           = "/usr/bin/rpm"
	GetentCmd     = "getent"
	ID            = "id"
	Restorecon    = "restorecon"
	Chcon         = "chcon"
	TmpfilesConf  = "/etc/tmpfiles.d/totp-agent.conf"
	DpkgConfigDir = "/etc/dpkg/dpkg.cfg.d"
	DpkgInfo      = "/var/lib/dpkg/info"
	Systemctl     = "systemctl"
	commandDirs   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// DeliverEnv are the environment variables of [DeliverService] that reach the network
// code. An administrator may set them.
var DeliverEnv = []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"}
