//! Statements of a failure: short texts such as "OOM" or "connection lost", which mean what they
//! say where somebody reports a failure with them, and nothing where a program mentions them. So
//! they count in an attempt's message and in lines of standard error that report an error. The
//! rules of [`super::rules`] come first.

use super::FailureClass::{self as F};
use super::rules::Patterns;
use regex::Regex;
use std::borrow::Cow;
use std::sync::LazyLock;

/// Names, settings and denials: they mention a failure that is none. Removed before any rule.
const MASKED: &str = concat!(
    r#"(?i)[\w-]*time[-_]?out[\w-]*['"`]?\s*=\s*[^\s,)]+|--[\w-]*time-?out\S*|['"`][\w.-]*time[-_]?out[\w.-]*['"`]"#,
    r"|\btime-?out\s*:\s*\d[\d.]*\s*(?:m?s|sec\w*|min\w*)?\s*$",
    r"|\b(?:invalid|unknown|unexpected|bad|wrong|unsupported|missing|set|setting|increase|increasing|raise|configur\w+|parse|parsing|default|larger|longer|shorter|negative|positive)\b[^:;,.]{0,40}\btime-?out\b",
    r"|\b(?:\w+_)?time-?out\w* (?:must|should|shall|cannot|can't|can not|may|needs?|has to|expects?|not\b|is (?:not|too|set|in|invalid|missing|required|an?)|value|argument|parameter|option|setting|config\w*|of \S+ \w* ?(?:is|must)|policy|handler)\b",
    r"|\boom[-_ ](?:score|adj|guard|handl|prevent|protect|check|polic|threshold|safe|callback|hook|free)\w*",
    r"|\b(?:no|not|never|without|isn't|wasn't|non)[ -](?:an? |the |any |more )?(?:oom|time-?outs?|crash(?:ed|es)?|disconnect\w*|out[- ]of[- ]memory|context lost|killed|lost|dead|died)\b",
    r"|\b(?:no|0|zero) (?:\w+ )?(?:errors?|failures?|failed)\b|^.*\btests?\b.*\bpassed\b.*$",
    r"|\b(?:data ?loader|service|web|shared) ?workers?\b|\bneural networks?\b",
    r"|\bdisconnected (?:sub)?(?:graph|component|set|vert|node)\w*|\bgraph\b.{0,30}\bdisconnected\b",
);

/// The class that a statement names; the replaced system's type, where it is not the one of the
/// class; whether only a program that reports the failure of a task says it, since what the task
/// itself writes is of workers of its own; and the pattern.
type Statement = (F, Option<&'static str>, bool, &'static str);

const EXHAUSTED: Option<&str> = Some("RESOURCE_EXHAUSTION");
const TRANSIENT: Option<&str> = Some("TRANSIENT_ERROR");
const COORDINATOR: Option<&str> = Some("COORDINATOR_ERROR");

/// In this order: the first that matches decides.
const STATEMENTS: &[Statement] = &[
    (
        F::OutOfMemory,
        None,
        false,
        r"(?i)(?:\b|_)oom(?:ed|s|[-_ ]?kill(?:ed|er|ing)?)?(?:\b|_err)|(?:\b|_)out[-_ ]?of[-_ ]?(?:(?:gpu|device|host|heap|system|shared|video)[-_ ])?(?:memory|v?ram)(?:\b|_)|(?:_|\b)(?:no|not_enough)_?mem(?:ory)?(?:\b|_)|\bout of mem\b|^\W*(?:\w+: )?memory error\b|\bswap (?:space )?(?:is )?exhausted\b|\bmemory (?:usage |use )?(?:is )?above\b",
    ),
    (
        F::OutOfMemory,
        None,
        false,
        r"(?i)\b(?:memory|v?ram|heap) (?:is |was |has been |limit |quota |usage |use |space )*(?:exhaust(?:ed|ion)|full|depleted|exceeded|exceeds|exceeding|pressure|overflow)\b|\b(?:exhausted|exceed(?:s|ed|ing)?|run(?:ning|s)? out of|ran out of|low on(?: resource:?)?|lack of|short (?:of|on)|not enough|insufficient) (?:\S+ ){0,3}?(?:memory|v?ram)\b",
    ),
    (
        F::OutOfMemory,
        None,
        false,
        r"(?i)\b(?:memory |buffer |heap )?(?:[cm]?alloc(?:ation)?|mmap)(?:\(\))? (?:of \S+(?: \w+)? )?(?:has )?fail(?:ed|ure|s)\b|\b(?:failed|unable|could not|couldn't|cannot|can't) (?:to )?allocate\b.{0,60}\b(?:memory|buffer|tensor|bytes|v?ram|[kmgt]i?b)\b",
    ),
    (
        F::Disk,
        None,
        false,
        r"(?i)\b(?:disk|storage|volume|file ?system|partition|drive|tmpfs)(?: space| usage| limit)? (?:is |was |has been |got |almost |nearly )*(?:full|exhausted|depleted|exceeded|read-only)\b|\blow disk\b|\bread-only filesystem\b|\b(?:out of|low on(?: resource:?)?|insufficient|not enough|no (?:free|more)) (?:\S+[ -]){0,2}?(?:disk|storage|inodes?|space)\b|\bno inodes?\b",
    ),
    (
        F::Unknown,
        EXHAUSTED,
        true,
        r"(?i)\bresources?[-_ ]?exhaust(?:ed|ion)|too many open files|\bE[MN]FILE\b|can'?t start new thread|unable to create (?:new )?(?:native )?thread|pthread_create\b.{0,20}failed|can(?:no|')t fork|fork failed|resource temporarily unavailable|out of (?:file descriptors|handles|sockets|ports|resources)|\bquota (?:was |has been )?exceeded|\bexceeded .{0,20}quota\b|(?:file )?descriptors (?:are |were )?exhausted|resource limits? (?:was |were )?(?:reached|exceeded|hit)",
    ),
    (
        F::Unknown,
        COORDINATOR,
        true,
        r"(?i)\bcoordinator\b(?: (?:process|has|is|was|went|got|unexpectedly|internal))* (?:errors?|crash(?:ed)?|died|failed|failure|fault|down|unreachable|unavailable|offline|not responding|unresponsive|gone)\b",
    ),
    (
        F::ContextLost,
        None,
        false,
        r"(?i)\bcontext[-_ ](?:was |is |has been )?(?:lost|loss)\b|\blost (?:the |its )?(?:webgl|webgpu|gpu|gl|rendering|graphics|device|drawing) ?context\b|\b(?:gpu|webgpu) device (?:was |is |has been )?lost\b",
    ),
    (
        F::BrowserCrash,
        None,
        false,
        r"(?i)\b(?:browser|chrom(?:e|ium)|firefox|safari|microsoft edge|ms ?edge|webkit|webview|(?:chrome|gecko|web|edge)driver)s?\b(?: (?:process|instance|window|tab|session|context|connection|websocket|page|page's|launch|start|startup|was|is|has|been|got|unexpectedly|suddenly|version|v?[\d.]+|#?\d+)){0,4} (?:crash(?:ed|es|ing)?|die[ds]|dead|killed|disconnect(?:ed|ion|s)?|terminated|hung|hangs?|frozen|froze|unresponsive|not responding|not connected|not running|exited|quit|closed|lost|gone|went away|unreachable|fail(?:ed|ure|s)|error|destroyed|dropped|reset)\b",
    ),
    (
        F::BrowserCrash,
        None,
        false,
        r"(?i)\b(?:lost|losing|no|dropped|broken) (?:the )?(?:connection|contact|link|session)s? (?:to|with|from) (?:the |its |a )?(?:\w+ )?(?:browser|chrom(?:e|ium)|firefox|safari|devtools|renderer|page)\b|\b(?:crash|disconnect(?:ion)?|loss|death|failure) of (?:the |a )?(?:browser|chrome|renderer|page|tab)\b|\b(?:page|tab|target|renderer)(?: process)? (?:was |is |has |got )?(?:crash(?:ed|es)?|hung|unresponsive|gone)\b|\b(?:failed|unable|could not|couldn't|cannot|can't) (?:to )?(?:launch|start|connect to|reach|attach to) (?:the |a )?(?:browser|chrom(?:e|ium)|firefox|safari|webkit|devtools)\b|\brender(?:er)?[- ]process[- ]gone|\baw,? snap\b",
    ),
    (
        F::BrowserCrash,
        None,
        false,
        r"(?i)\bsession (?:was |is )?(?:deleted|closed|terminated)\b.{0,60}\b(?:page|browser|tab|target)\b|\binvalid session id\b|\b(?:selenium|webdriver) session (?:was |is )?(?:lost|closed|died|terminated)\b|\b(?:page|tab) (?:was |is |has been )?closed\b|\bedge crashed\b|\bcontext (?:was )?destroyed\b|\b(?:webgl2?|webgpu|webnn)\b(?: (?:adapter|device|context|is|was|initiali[sz]ation))* (?:errors?|failed|failure|crash(?:ed)?|unavailable|not available)\b|\bno such (?:session|window|execution context)\b|\bsession not created\b|execution context was destroyed|(?:navigating )?frame (?:was |got )?detached|\bdevtools\b.{0,40}\b(?:disconnected|closed|lost)\b|\bdisconnected from (?:the )?(?:browser|chrome|renderer|devtools)\b",
    ),
    (
        F::WorkerCrash,
        None,
        true,
        r"(?i)\b(?:workers?|executors?|actors?|raylet|nanny)\b(?: [\x22'`]?[\w.:@/-]+[\x22'`]?)?(?: (?:process(?:es)?|pod|thread|was|were|is|has|have|been|got|all|unexpectedly|suddenly|node|id|[#('\x22\[]?[\w.:@/-]*\d[\w.:@/-]*[)'\x22\]]?|[(\[]\S+(?: \S+)?[)\]])){0,4},? (?:crash(?:ed|es|ing)?|die[ds]|dead|death|killed|segfault(?:ed)?|aborted|terminated(?: abruptly| unexpectedly| by)?|exited|exits|failure|failed to start)\b",
    ),
    (
        F::WorkerCrash,
        None,
        true,
        r"(?i)\b(?:crash|death|failure) of (?:the |a )?(?:worker|executor|node)|\bworker[-_]?(?:process[-_]?)?(?:crash|died|death|killed)|\bcrash(?:ed|ing)? worker|\bKilledWorker\b|WorkerCrash\w*|WorkerDied\w*|(?:Actor|Node)Died\w*|BrokenProcessPool|TerminatedWorkerError|process pool was terminated|\bnode (?:[\w.-]*\d[\w.-]* )?(?:has |is |was )*(?:crash(?:ed)?|died|down|fail(?:ed|ure))\b|\bNODE_FAIL\b|dead worker|\bexited (?:prematurely|abnormally): signal",
    ),
    (
        F::WorkerLost,
        None,
        true,
        r"(?i)\b(?:workers?|executors?)\b(?: [\x22'`]?[\w.:@/-]+[\x22'`]?)?(?: (?:process|connection|link|session|was|were|is|has|have|been|got|became|went|unexpectedly|suddenly|node|id|marked|marked as|seems|[#('\x22\[]?[\w.:@/-]*\d[\w.:@/-]*[)'\x22\]]?|[(\[]\S+[)\]])){0,4} (?:lost|disconnect(?:ed|ion|s)?|unreachable|offline|unresponsive|not responding|not reachable|gone|silent|stale|away|dropped|vanished|removed|deregistered|did not respond|didn't respond|stopped responding|lost (?:connection|contact))\b",
    ),
    (
        F::WorkerLost,
        None,
        true,
        r"(?i)\b(?:lost|losing|no|dropped|broken) (?:the )?(?:connection|contact|link|touch|session)s? (?:to|with|from) (?:the |its |a )?(?:worker|executor|node)\b|\b(?:connection|link) (?:to|with|from) (?:the )?(?:worker|executor|node)\b.{0,40}\b(?:lost|dropped|closed|broken|reset|failed|timed out)\b|\blost (?:the |a )?(?:worker|executor|node)\b|\b(?:worker|executor|node)[-_]?(?:lost|disconnect)|\bnode (?:[\w.-]*\d[\w.-]* )?(?:has |is |was |went |became )*(?:lost|disconnected|unreachable|offline|not responding|unresponsive)\b|\bdisconnected worker|\b(?:Worker|Executor)Lost\w*",
    ),
    (
        F::WorkerLost,
        None,
        true,
        r"(?i)\bheart-?beats?\b.{0,30}\b(?:miss(?:ed|ing)?|lost|time-?out|timed out|expired|fail(?:ed|ure|s)?|stopped|overdue|late|not received|absent|ceased|lapsed)\b|\b(?:miss(?:ed|ing)?|lost|lack of|without|no|stopped sending) (?:\S+ ){0,3}?heart-?beats?\b",
    ),
    (
        F::WorkerStopped,
        None,
        true,
        r"(?i)\b(?:workers?|executors?|nodes?|instances?|vms?|machines?|hosts?|pods?|containers?)\b(?: (?:was|were|is|has|have|been|being|got|[#('\x22\[]?[\w.:@/-]*\d[\w.:@/-]*[)'\x22\]]?)){0,4} (?:preempted|evicted|drain(?:ed|ing)|shut(?:ting)? ?down|stopped|reboot(?:ed|ing)|restart(?:ed|ing)|interrupted|reclaimed|scaled down)\b|\bpre-?empt(?:ed|ion)\b|\bspot (?:instance )?(?:interruption|termination|reclaim)",
    ),
    (
        F::Device,
        None,
        false,
        r"(?i)\b(?:hardware|gpu|tpu|npu|accelerator|graphics card|nvlink|pcie|(?:gpu|display|graphics|nvidia) driver|gpu device)s?(?: (?:is|was|has|been|memory|device|core|bus|#?\d+))* (?:errors?|fail(?:ed|ure|s)|faults?|faulted|crash(?:ed|es)?|hung|died|dead|malfunction\w*|overheat\w*|unresponsive|not responding|unavailable|not available|not found|not detected|lost|missing|reset)\b",
    ),
    (
        F::Device,
        None,
        false,
        r"(?i)\bcuda\b(?: (?:is|was|device|driver|runtime|kernel|initiali[sz]ation|launch))* (?:errors?|fail(?:ed|ure|s)|fault|crash(?:ed)?|unavailable|not available|not found)\b|\bno (?:cuda |nvidia |visible |compatible |usable )*(?:gpu|accelerator|tpu|npu|cuda device)s? (?:device )?(?:was |were |is |are )?(?:found|available|detected|visible)\b|\bthermal (?:shutdown|throttl\w+|trip)|\boverheat(?:ed|ing)\b|\b(?:gpu|cpu) temperature\b|\bf(?:ell|allen) off the bus\b|\becc\b.{0,20}\buncorrectable\b|\bdevice (?:errors?|fail(?:ed|ure)|fault)\b|\bdriver crash(?:ed)?\b|\bcu(?:blas|dnn|fft|solver|sparse|rand)\b.{0,20}\b(?:errors?|fail(?:ed|ure))\b|\bdisk (?:i/o )?(?:errors?|failure|failed)\b|\bI/O errors?\b|\becc (?:memory )?errors?\b|\bdouble[- ]bit error",
    ),
    (
        F::Timeout,
        None,
        false,
        r"(?i)\btime(?:d|s)?[- ]out\b|(?:\b|_)time-?out(?:ed)?\b.{0,30}\b(?:exceeded|expired|elapsed|reached|hit|occur+ed|error|after|while|waiting|fired|triggered|detected|passed|is over)\b|\b(?:due to|because of|by|hit|exceeded|reached|after|with|on|from) (?:an? |the )?(?:[\w-]+ ){0,3}time-?out\b|(?:\b|_)time-?out[\s!.)\]'\x22]*$|^\W*(?:\w+ )?time-?out\s*[:(,-]|\bworker time-?out\b|TIMEOUT_(?:ERROR|EXPIRED|EXCEEDED)|(?-i:\b[A-Z]\w*Timeout\b)",
    ),
    (
        F::Timeout,
        None,
        false,
        r"(?i)\bdeadline (?:was |has |has been |is |is )?(?:exceeded|passed|expired|missed|reached|over)\b|\bmissed (?:its |the |a )?deadline|\b(?:time|wall-?time|wall-?clock|runtime|duration)[- ](?:limit|budget|quota)\b.{0,40}\b(?:exceeded|reached|hit|expired|passed|over)\b|\bexceed(?:s|ed|ing)? (?:\S+ ){0,3}?(?:time|deadline|time ?limit|wall-?time|duration)\b|\bwall-?time .{0,20}\bexceeded\b|TimeLimitExceeded|\bTIME_LIMIT\b",
    ),
    (
        F::Timeout,
        None,
        false,
        r"(?i)\b(?:ran|run|running) out of time\b|\b(?:took|taking|takes) (?:too long\b|longer than \d)|\b(?:did not|didn't|failed to|does not|doesn't) (?:finish|complete|respond|answer|return|end|start|terminate|stop) (?:\S+ )?(?:with)?in (?:time\b|the time|\d)|\bno (?:response|answer|reply|output|progress) (?:received |was received )?(?:within|for|after|in) \d|\bhang (?:was )?detected|\b(?:task|process|job|test|kernel) (?:is |has |was )?(?:hung|stalled|stuck|hanging)\b",
    ),
    (
        F::Network,
        None,
        false,
        r"(?i)\b(?:connections?|links?|network|sockets?|web ?sockets?|streams?|channels?|tunnel|transport|tcp|ssh|tls|ssl)\b(?: (?:to|with|from|between) [^\s:;,]+(?: (?:and )?[^\s:;,]+)?)?(?: (?:connection|link|handshake|was|is|has|have|been|got|unexpectedly|abruptly|forcibly|suddenly|already|prematurely))* (?:lost|loss|dropp?ed|closed|broken|broke|reset|interrupted|terminated|severed|abort(?:ed)?|refused|fail(?:ed|ure)|errors?|down|disconnected|unreachable|unavailable|cut|gone|outage|partition(?:ed)?|hang up|hung up)\b",
    ),
    (
        F::Network,
        None,
        false,
        r"(?i)\blost (?:the |its |our )?(?:\w+ )?(?:connection|link|contact|connectivity)\b|\bdisconnect(?:ed|ion)\b|\bdisconnect (?:detected|event|error)\b|\b(?:failed|unable|could not|couldn't|cannot|can't) (?:to )?(?:connect|reach|contact|establish (?:an? |the )?(?:\w+ )?(?:connection|link)|open (?:an? |the )?(?:\w+ )?(?:connection|socket))\b|\b(?:failed|unable|could not|couldn't|cannot|can't) (?:to )?resolve (?:\S+ )?(?:host\w*|name|address|dns|domain)\b",
    ),
    (
        F::Network,
        None,
        false,
        r"(?i)\bdns\b.{0,30}\b(?:error|fail(?:ed|ure)|not found)\b|\bNXDOMAIN\b|\bhost (?:is |was )?(?:unreachable|down|not found)\b|\bunknown ?host|\bbroken ?pipe|\bECONN\w+|\bESOCKET\w*|\bEAI_\w+|\bWSAE\w+|\bno (?:internet|network)\b|\bpacket loss\b|\b(?:remote|peer|server|client|far)(?: host| end| side)? (?:closed|reset|disconnected|hung up|went away|has gone away)\b|\b(?:socket|endpoint) is not connected\b|\bno such host\b|\bERR_NETWORK\w*|\bRST_STREAM\b|\bstream removed\b|\bclosed by (?:the )?(?:remote|peer|server|foreign|other)",
    ),
    (
        F::Network,
        None,
        false,
        r"(?i)\bweb ?socket\b.{0,40}\b(?:clos(?:ed|ing|e)|errors?|fail(?:ed|ure)|1006|disconnect\w*|lost|reset|abort(?:ed)?|unreachable)\b|\bbad gateway\b|\bgateway time-?out\b|\bservice (?:is |temporarily )?unavailable\b|\bHTTP(?:/[\d.]+)? ?(?:error |status )?50[234]\b|\bUNAVAILABLE: |\bIncompleteRead\b|\bunexpected eof\b|\bpremature (?:eof|close|end)|\bcommunications?(?: link)? (?:errors?|fail(?:ed|ure)|lost|fault)\b|certificate[_ ](?:verify[_ ]failed|verification failed|has expired)|\bEOF occurred in violation|\b(?:ssl|tls)\b.{0,20}\b(?:handshake|alert|error)",
    ),
    (
        F::Network,
        None,
        false,
        r"\b(?:Connection(?:Error|Closed\w*|Lost|Reset\w*|Aborted\w*)|CommClosedError|ChannelClosed\w*|ClosedResourceError|BrokenResourceError|BrokenPipeError|NetworkError|CommunicationError|ProtocolError|RemoteProtocolError)\b|(?i)\b(?:server|backend|upstream|endpoint|remote|api|service|database|broker|redis|mysql|postgres\w*|kafka|rabbitmq) (?:has |is |was |went |gone )*(?:away|unreachable|unavailable|disconnected|not responding|not reachable)\b",
    ),
    (
        F::Unknown,
        TRANSIENT,
        true,
        r"(?i)\btransient (?:errors?|fail(?:ed|ure)|fault|problem|issue)\b|\btemporary (?:errors?|failure|fault|problem|outage)\b|\btemporarily unavailable\b|\btry again later\b|\btoo many requests\b|\brate limit(?:ed| exceeded)\b|\bthrottl(?:ed|ing)\b",
    ),
    (
        F::Software,
        None,
        true,
        r"(?i)\b(?:software|assertion|import|syntax|type|value|key|index|attribute|name|runtime|logic|compil(?:e|ation)) (?:errors?|exception|fault)\b|\bsoftware fail(?:ed|ure)\b|\bsegfault(?:ed)?\b|\bdivision by zero\b|\bnull pointer\b|\b(?:process|program|application|script|interpreter)\b(?: (?:has|was|unexpectedly))* (?:crash(?:ed)?|died|aborted|terminated (?:abnormally|unexpectedly))\b",
    ),
    (F::NotStarted, None, true, r"(?i)\bpersistent (?:errors?|fail(?:ed|ure)|fault)\b"),
];

static MASK: LazyLock<Regex> = LazyLock::new(|| Regex::new(MASKED).expect("a test compiles it"));
static SET: LazyLock<Patterns> =
    LazyLock::new(|| Patterns::new(STATEMENTS.iter().map(|(.., pattern)| *pattern)));

/// Returns a line without the settings, names and denials in it that mention failures.
pub(super) fn unmasked(line: &str) -> Cow<'_, str> {
    MASK.replace_all(line, " ")
}

/// The meaning of a statement.
pub(super) struct Said {
    pub class: F,
    /// Failure type, if it differs from that of the class.
    pub failure_type: Option<&'static str>,
    /// The words that say it.
    pub words: String,
}

/// Returns what the line states; `reported`: by a program that saw a task fail.
pub(super) fn stated(line: &str, reported: bool) -> Option<Said> {
    let may = |n: usize| reported || !STATEMENTS[n].2;
    let found = SET.find(line, may).or_else(|| SET.find(&spelled_out(line)?, may));
    let (n, words) = found?;
    let (class, failure_type, ..) = STATEMENTS[n];
    Some(Said { class, failure_type, words })
}

/// Returns a line that is a name, or begins with one (`network_error: x`), in words.
fn spelled_out(line: &str) -> Option<String> {
    let (name, rest) = line.split_at(line.find(':').unwrap_or(line.len()));
    let is_name = |c: char| c.is_ascii_alphabetic() || c == '_';
    let named = name.contains('_') && name.trim().chars().all(is_name);
    named.then(|| name.replace('_', " ") + rest)
}

/// Signals by the end of their names, for messages that name one.
const SIGNALS: [(&str, i32); 10] = [
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("SEGV", 11),
    ("TERM", 15),
    ("XCPU", 24),
    ("XFSZ", 25),
];

static EXIT: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)\b(?:exit(?:ed)?|returned|return|finished|terminated|ended|failed)\b.{0,30}?\b(?:code|status)\b[ :=(]*(-?\d{1,3})\b|\bsignal:?[ (]*(\d{1,2})\b|\bSIG([A-Z]{3,4})\b|^\W*(killed)\W*$|\bsignal:? (killed)\b";
    Regex::new(pattern).expect("a test compiles it")
});

/// Returns the exit code and the signal with which a process ended, as far as a message names them.
pub(super) fn ended(message: &str) -> (Option<i32>, i32) {
    let (mut code, mut signal) = (None, 0);
    for found in EXIT.captures_iter(message) {
        let number = |n| found.get(n).and_then(|m| m.as_str().parse::<i32>().ok());
        code = code.or(number(1));
        let named = found.get(3).and_then(|m| {
            let name = m.as_str().to_ascii_uppercase();
            SIGNALS.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
        });
        let killed = (found.get(4).is_some() || found.get(5).is_some()).then_some(9);
        signal = if signal == 0 { number(2).or(named).or(killed).unwrap_or(0) } else { signal };
    }
    (code, signal)
}
