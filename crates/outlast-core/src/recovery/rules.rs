//! The built-in rules: what lines of error output mean. Names are those that runtimes, drivers
//! and kernels print (CUDA and ROCm error enumerations, errno(3), V8, the JVM, Playwright,
//! Puppeteer, Selenium, the WebGPU and WebGL specifications).

use super::FailureClass::{self as F};
use regex::{Regex, RegexSet};
use std::sync::OnceLock;

/// The longest quote of what a pattern matched, in characters.
const WORDS: usize = 80;

/// Patterns that are tried together.
pub(super) struct Patterns {
    set: RegexSet,
    /// Each for itself, compiled when what it matched is asked for.
    each: Vec<(&'static str, OnceLock<Regex>)>,
}

impl Patterns {
    pub(super) fn new(patterns: impl Iterator<Item = &'static str>) -> Patterns {
        let each: Vec<_> = patterns.map(|p| (p, OnceLock::new())).collect();
        let set = RegexSet::new(each.iter().map(|(p, _)| *p)).expect("a test compiles them");
        Patterns { set, each }
    }

    pub(super) fn is_match(&self, line: &str) -> bool {
        self.set.is_match(line)
    }

    /// The first pattern that `may` count and matches, and the words that it matched.
    pub(super) fn find(&self, line: &str, may: impl Fn(usize) -> bool) -> Option<(usize, String)> {
        let n = self.set.matches(line).iter().find(|n| may(*n))?;
        let (pattern, regex) = &self.each[n];
        let regex = regex.get_or_init(|| Regex::new(pattern).expect("a test compiles them"));
        let words = regex.find(line).map_or("", |m| m.as_str()).trim();
        Some((n, words.chars().take(WORDS).collect()))
    }
}

/// Lines that report no failure, whatever they mention: warnings, notes, advice.
pub(super) const MUTED: &[&str] = &[
    r"(?i)^\W*(?:\d[\d:.,TZ/+ -]*\s)?\W*(?:warn(?:ing)?|info|debug|notice|trace|note|hint|tip)\b",
    r"\b(?:\w*(?:User|Future|Deprecation|Runtime|Resource|Import|Exceeded|Experimental|Performance|Syntax|Unicode))?Warning: ",
    r"(?i)\[\s*(?:warn(?:ing)?|info|debug|notice)\s*\]",
    r"\d: [WI] [\w/]+",
    r"^[WI]\d{4} ",
    r"(?i)\b(?:recovered from|handled|retrying after|ignoring)\b",
];

/// The part of a line that speaks of what may happen; the rest of it may report what did. It ends
/// before a colon or semicolon, since errors give their cause after one.
pub(super) const ADVICE: &str = r"(?i)\b(?:avoid(?:s|ed|ing)?|prevent(?:s|ed|ing)?|protect(?:s|ed|ing)?|in case of|if (?:you|it|this|your \w+)|(?:may|might|could|would) (?:also |still |even )?(?:be|become|cause|crash|fail|get|go|happen|have|hit|lead|make|mean|occur|produce|result|run|see|trigger)|risk of|likely to|reduce the|no longer)\b[^:;]{0,60}?\b(?:out[- ]of[- ]memory|oom|timeout|timed out|crash|context lost|no space left)";

/// A line with which a program reports an error, rather than mentions one.
pub(super) const REPORTS: &str = r"\b\w*(?:Error|Exception)\b\s*(?:[:\[(\]]|$)|(?i:\b(?:error|fatal|critical|panic)\b\s*[:\]>|])|\b(?:ERROR|FATAL|CRITICAL|FAIL)\b|(?i:\b(?:failed|failure|fails|killed|crash(?:ed)?|aborted|aborting|panicked|uncaught|unhandled)\b|Traceback \(|terminate called)";

/// An exception that a program's own code raises: as the last word it beats what came before.
pub(super) const PROGRAM: &str = r"^\s*(?:[\w.]+\.)?(?:TypeError|ValueError|KeyError|AttributeError|NameError|IndexError|AssertionError|ModuleNotFoundError|ImportError|SyntaxError|IndentationError|ZeroDivisionError|NotImplementedError|UnboundLocalError|RecursionError|FileNotFoundError|UnicodeDecodeError|ReferenceError|RangeError|JSONDecodeError|NullPointerException|IllegalArgumentException|ClassNotFoundException)\b";

/// One exception led to the other: then the first one counts too.
pub(super) const CHAINED: &str = r"During handling of the above exception|direct cause of the following exception|^Caused by: |root cause above";

/// Rules that name a cause. The first that matches a line decides what the line means.
pub(super) const SPECIFIC: &[(F, &str)] = &[
    (
        F::ContextLost,
        r"CONTEXT_LOST(?:_WEBGL)?\b|(?i)\bwebgl(?:2|rendering)?[ _]?context ?(?:was |is |has been )?lost|webglcontextlost",
    ),
    (
        F::ContextLost,
        r"(?i)\b(?:webgpu|webnn|gpu ?device|wgpu\w*|dawn)\b.{0,60}\b(?:was |is |has been )?lost\b|\bdevice(?:\.lost| (?:was|is|has been) lost)\b|^\W*(?:Uncaught |Error: )*device lost\b",
    ),
    (F::ContextLost, r"(?i)\b(?:gpu|webgpu|webgl|dawn|wgpu)\b.{0,40}\bdevice lost\b"),
    (
        F::ContextLost,
        r"A valid external Instance reference no longer exists|(?i)parent device is lost|lost its (?:webgl|gpu) context",
    ),
    (
        F::BrowserCrash,
        r"(?i)\b(?:tab|page|target|renderer|browser(?: process)?|gpu process) (?:has |was |is )?crash(?:ed)?\b|because of page crash|crash from tab",
    ),
    (
        F::BrowserCrash,
        r"(?i)target page, context or browser has been closed|browser has disconnected|browser (?:was )?closed unexpectedly|browser has been closed|\bTarget closed\b",
    ),
    (
        F::BrowserCrash,
        r"(?i)failed to launch (?:the )?browser|chrome failed to start|DevToolsActivePort file doesn't exist|(?:chrome|browser) not reachable|not connected to DevTools|browserType\.launch: ",
    ),
    (
        F::BrowserCrash,
        r"GPU process isn't usable|(?i)GPU process exited unexpectedly|Process unexpectedly closed with|Failed to connect to the bus.*chrome.*crash|crashpad.*exception",
    ),
    // What devices say when they run out of memory comes before what they say otherwise.
    (
        F::OutOfMemory,
        r"CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory|CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED|VK_ERROR_OUT_OF_(?:DEVICE|HOST|POOL)_MEMORY|CL_MEM_OBJECT_ALLOCATION_FAILURE|CL_OUT_OF_HOST_MEMORY|HSA_STATUS_ERROR_OUT_OF_RESOURCES|UR_RESULT_ERROR_OUT_OF_(?:DEVICE_MEMORY|HOST_MEMORY|RESOURCES)",
    ),
    (
        F::OutOfMemory,
        r"(?i)\bout[- ]of[- ]memory\b|\bOutOfMemory(?:Error|Exception)?\b|\b_?(?:Array)?MemoryError\b|std::bad_alloc|\bENOMEM\b|cannot allocate memory|FatalProcessOutOfMemory|OOMErrorHandler",
    ),
    (
        F::OutOfMemory,
        r"(?i)java heap space|gc overhead limit exceeded|insufficient memory for the java|heap limit allocation failed|virtual memory exhausted|not enough memory\b|insufficient memory\b|allowed memory size of \d+ bytes exhausted",
    ),
    (
        F::OutOfMemory,
        r"(?i)\b(?:unable|failed|could not|can't|cannot) (?:to )?(?:allocate|mmap) .{0,60}(?:\bmemory|bytes|\d ?[KMGT]i?B)\b|could not reserve enough space for .{0,40}\bheap\b|memory allocation of \d+ bytes failed|\bOOM when allocating\b|failed to allocate \w*memory",
    ),
    (
        F::OutOfMemory,
        r"RESOURCE_EXHAUSTED: .*(?i:memory|alloc|oom)|(?i)\boom[- ]?kill(?:ed|er)\b|memory limit (?:was )?exceeded|exceed(?:s|ed|ing)? .{0,40}memory limit|fatal error: Killed signal terminated program|std::length_error.*vector|exhausted the .*memory",
    ),
    (
        F::Device,
        r"(?i)\bCUDA (?:runtime |driver )?(?:error|failure)\b|\bcuda runtime error|CUDA_ERROR_\w+|\bcudaError[A-Z]\w+|no CUDA-capable device|CUDA driver version is insufficient|Found no NVIDIA driver|CUDA initialization: |CUDA unknown error|Torch not compiled with CUDA",
    ),
    (
        F::Device,
        r"CU(?:BLAS|DNN|FFT|SOLVER|SPARSE|RAND)_STATUS_[A-Z_]+|(?i)cuDNN error|cublas error|device-side assert|illegal memory access was encountered|misaligned address|unspecified launch failure|\bNCCL (?:error|failure)|ncclUnhandledCudaError|unhandled cuda error|ncclSystemError|uncorrectable ECC",
    ),
    (
        F::Device,
        r"(?i)\bHIP error\b|hipError[A-Z]\w+|HSA_STATUS_ERROR\w*|\bROCm? error|Memory access fault by GPU|rocBLAS error|MIOpen\w* ?Error|miopenStatus\w+|amdgpu.{0,80}(?:ring \S+ timeout|reset|hang)",
    ),
    (
        F::Device,
        r"NVRM: |(?i)\bXid\b.{0,40}\d+|fallen off the bus|\bNVML\b.{0,40}(?:error|mismatch|fail|not found|unknown)|nvidia-smi has failed|Unable to determine the device handle|GPU is lost|nvidia-container-cli: ",
    ),
    (
        F::Device,
        r"VK_ERROR_(?:DEVICE_LOST|INITIALIZATION_FAILED|INCOMPATIBLE_DRIVER)|DXGI_ERROR_DEVICE_\w+|(?i)\bGPU (?:hang|hung|reset)|\bGPU HANG\b|CL_(?:DEVICE_NOT_(?:FOUND|AVAILABLE)|OUT_OF_RESOURCES|INVALID_COMMAND_QUEUE)|clGetPlatformIDs.{0,40}-1001",
    ),
    (
        F::Device,
        r"(?i)\bTPU\b.{0,60}(?:fail|unavailable|not found|in use|unhealthy|error)|Unable to initialize backend|backend \w*(?:tpu|cuda|gpu|rocm)\w*.{0,40}failed to initialize|UR_RESULT_ERROR_\w+|ZE_RESULT_ERROR_\w+|\bInput/output error\b|\bEIO\b|\bmachine check\b",
    ),
    (
        F::Disk,
        r"(?i)no space left on device|\bENOSPC\b|disk quota exceeded|\bEDQUOT\b|disk is full|disk full|not enough (?:free )?(?:disk )?space|insufficient disk space|read-only file system|SQLITE_FULL",
    ),
    (
        F::Network,
        r"\b(?:ECONNREFUSED|ECONNRESET|ECONNABORTED|ENETUNREACH|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN|ENETDOWN|EPIPE)\b|\bETIMEDOUT\b|net::ERR_(?:CONNECTION|NAME|INTERNET|NETWORK|ADDRESS|TUNNEL|SSL)\w*|NS_ERROR_(?:UNKNOWN_HOST|CONNECTION\w*|NET\w*)",
    ),
    (
        F::Network,
        r"(?i)connection (?:was )?(?:refused|reset|aborted)|connection (?:closed|broken|dropped|lost) (?:by|unexpectedly|before)|network is unreachable|no route to host|name or service not known|temporary failure in name resolution|could(?:n't| not) resolve (?:host|proxy)|nodename nor servname|failed to establish a new connection|unexpected EOF while reading|early EOF|socket hang up",
    ),
    (
        F::Network,
        r"(?i)\b(?:connect|connection|read|handshake|TLS handshake|i/o|proxy|gateway|upstream(?: request)?)\b.{0,20} (?:timed out|timeout)|\b(?:ssh|curl|connect to|dial)\b.{0,80} timed out|Max retries exceeded with url|ReadTimeoutError|(?:Connect|Read|Write|Pool)Timeout(?:Error)?\b|RemoteDisconnected|getaddrinfo failed|dial tcp|502 Bad Gateway|503 Service (?:Temporarily )?Unavailable|504 Gateway Time-?out|SSLError\(|fetch failed$|TypeError: Failed to fetch|NetworkError when attempting",
    ),
    (
        F::Timeout,
        r"(?i)\bTimeout(?:Error|Exception|Expired)?\b.{0,40}\b\d+ ?m?s(?:ec)?\b|\btimeout of \d+ ?ms exceeded|exceeded (?:the )?timeout|DEADLINE_EXCEEDED|DeadlineExceeded|deadline exceeded|\bTimeout(?:Error|Exception|Expired)\b|timed out after|\b(?:request|operation)\b.{0,20} (?:timed out|timeout)|navigation timeout|test timeout of|watchdog (?:got|caught|detected|timeout)|DUE TO TIME LIMIT|execution expired|max(?:imum)? execution time",
    ),
];

/// Rules that say only that the program failed.
pub(super) const SOFTWARE: &[&str] = &[
    r"Traceback \(most recent call last\)",
    r"^\s*(?:\w+ ?[:>] )?(?:[\w.$]+\.)?\w*(?:Error|Exception)\b(?::|$| \[)",
    r"panicked at|^panic: |^goroutine \d+ \[running\]",
    r"(?i)segmentation fault|\bbus error\b|core dumped|illegal instruction|floating point exception|stack overflow|stack smashing|double free|corrupted size|heap-buffer-overflow|AddressSanitizer",
    r"(?i)assert(?:ion)?\b.{0,80}\bfailed|^\s*(?:E\s+)?assert ",
    r"undefined reference|undefined symbol|^error(?:\[E\d+\])?: |(?i): fatal error: |: error: ",
    r"npm ERR!|^make(?:\[\d+\])?: \*\*\*|BUILD FAILED|FAILURE: Build failed|Build FAILED|FAILED \((?:errors|failures)=|=+ .*\b\d+ failed\b",
    r"(?i)\bunhandled (?:exception|promise|rejection)|uncaught (?:exception|error|typeerror)|permission denied|syntax error|unexpected token|no such file or directory|^fatal: ",
];
