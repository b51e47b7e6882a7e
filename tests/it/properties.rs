//! The checks of `models` on random input. The fuzzers in `fuzz/` run the same checks for longer.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::models;

/// Bytes that are likely to be a log, or almost one.
fn log() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"2026-11-20T10:47:01.312773573Z ".to_vec()),
        Just(b"2026-11-20T10:47:01.5Z ".to_vec()),
        Just(b"1970-01-01T00:00:00+02:00 ".to_vec()),
        Just(b"\n".to_vec()),
        vec(any::<u8>(), 0..40),
        vec(b'a'..b'd', 0..600),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Text that is likely to be a timestamp, or almost one.
fn stamp() -> impl Strategy<Value = Vec<u8>> {
    let date = "[0-9]{4}-[0-1][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]";
    let zone = "(Z|[+-][0-2][0-9]:[0-6][0-9]| )? ?.{0,5}";
    let text = format!("{date}(\\.[0-9]{{0,10}})?{zone}");
    let text = proptest::string::string_regex(&text).unwrap();
    (text, any::<Option<(prop::sample::Index, u8)>>()).prop_map(|(text, change)| {
        let mut bytes = text.into_bytes();
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// So many cases unless `PROPTEST_CASES` says how many, from a seed that is printed; `PROPTEST_RNG_SEED` repeats one.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let told = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if told { given.cases } else { cases };
    let seed = match given.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    println!("PROPTEST_RNG_SEED={seed}");
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// The flags of `podlog run` that take a value, except those that name files.
fn flags() -> Vec<String> {
    let command = podlog::cli::command();
    let run = command.find_subcommand("run").unwrap();
    let names = run.get_arguments().filter_map(|flag| flag.get_long());
    let names = names.filter(|name| !["config", "help", "version"].contains(name));
    names.map(str::to_owned).collect()
}

/// Flags for durations and sizes: computing with them must not overflow.
const TIMES: [&str; 11] = [
    "ttl",
    "renew",
    "margin",
    "takeover-grace",
    "poll-interval",
    "chunk-age",
    "reopen",
    "probe",
    "write-timeout",
    "retain",
    "grace",
];
const SIZES: [&str; 6] = [
    "max-line",
    "chunk-bytes",
    "max-pods",
    "max-streams",
    "streams-per-node",
    "open-rate",
];

/// A flag and its value.
fn setting() -> impl Strategy<Value = (String, String)> {
    let times = "(0|1|[0-9]{1,4}|18446744073709551615|584542046090)(s|ms|ns|y|h)";
    let sizes = "0|1|[0-9]{1,4}(B|KiB|GiB)?|4294967295|18446744073709551615";
    prop_oneof![
        (prop::sample::select(TIMES.map(str::to_owned).to_vec()), times),
        (prop::sample::select(SIZES.map(str::to_owned).to_vec()), sizes),
        (
            prop::sample::select(vec!["lock".to_owned(), "sink".to_owned()]),
            value()
        ),
        (prop::sample::select(flags()), value()),
    ]
}

/// Values that people type, and values that they should not type.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,20}(ns|ms|s|m|h|d|w|months|y|years| |KiB|GiB|EB)?([0-9]{1,20}y)?",
        "(18446744073709551615|584542046090|9223372036854775807)(s|y|ms|ns)?",
        "(mysql|mariadb|sqlite|file|stdout|https)://(u:hunter2@|u@)?[a-z0-9.:/\\\\?=&%-]{0,20}",
        "(mysql|sqlite|x)?:?/{0,2}u:hunter2@h/d[?#&=a-z]{0,6}",
        "-?[0-9]{1,20}|true|false|off|[0-9.:\\[\\]]{1,20}",
        "[a-zA-Z0-9.,_=!() -]{0,20}",
        "\\PC{0,12}",
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn any_bytes_give_the_same_lines_however_they_are_split(
        log in log(), cuts in vec(any::<u8>(), 1..8), cap in 64..600_usize, ended: bool
    ) {
        models::check_lines(&log, &cuts, cap, ended);
    }

    #[test]
    fn any_timestamp_is_parsed_as_the_library_parses_it(stamp in stamp()) {
        models::check_stamp(&stamp);
    }

    #[test]
    fn any_log_can_be_resumed_after_any_of_its_lines(
        seed in vec(any::<u8>(), 0..60), stored: usize, cuts in vec(1..90_u8, 1..5), skipped: usize
    ) {
        models::check_resume(&seed, stored, &cuts, skipped);
    }

    #[test]
    fn any_url_is_parsed_or_refused_and_shows_no_password(
        scheme in "mysql|mariadb|sqlite|file|stdout|https|[a-z]{0,3}", before in "[/?#@:%\\\\\\[\\]a0& ]{0,5}",
        after in "[/?#@:%\\\\\\[\\]a0 ]{0,5}", rest in "[/?#@:%=&a0]{0,8}|\\PC{0,8}"
    ) {
        models::check_url(&scheme, &before, &after, &rest);
    }

    #[test]
    fn any_selector_is_accepted_or_refused(text in "[a-z.=!,() /]{0,30}|\\PC{0,30}") {
        models::check_selectors(&text);
    }

    #[test]
    fn any_size_and_any_address_is_parsed_or_refused(text in "[0-9]{0,21} ?[kKMGT]?i?[bB]?|[0-9a-f.:\\[\\]]{0,20}|\\PC{0,9}") {
        models::check_value(&text);
    }

    #[test]
    fn any_pod_is_kept_with_valid_names_or_dropped(
        uid in "[a-f0-9-]{0,70}|\\PC{0,70}", name in "[a-z]{0,260}|\\PC{0,9}", container in "[a-z]{0,140}|\\PC{0,9}",
        id in "(x://)?([0-9a-f]{0,140}|\\PC{0,9})", restart: i32, state in "running|terminated|waiting|x"
    ) {
        let status = serde_json::json!({"name": container, "image": "", "imageID": "", "ready": true, "containerID": id,
            "restartCount": restart, "state": {state: {"containerID": id, "exitCode": 0}},
            "lastState": {"terminated": {"exitCode": restart, "containerID": id}}});
        let pod = serde_json::json!({"metadata": {"uid": uid, "name": name, "namespace": name},
            "spec": {"nodeName": name, "containers": [{"name": container}], "initContainers": [{"name": name}]},
            "status": {"phase": "Running", "containerStatuses": [status]}});
        models::check_pod(pod.to_string().as_bytes());
    }

    #[test]
    fn any_checkpoint_is_parsed_or_refused_and_can_be_resumed(
        name in "app|\\PC{0,9}", id in "id[0-9]|\\PC{0,9}", restart: u32, time: i64, ordinal: u32, hash: u64,
        finished: bool, change in any::<Option<(prop::sample::Index, u8)>>()
    ) {
        let mark = serde_json::json!({"i": id, "r": restart, "p": {"t": time, "n": ordinal, "h": hash}, "f": finished});
        let mut bytes = serde_json::json!({"c": {name: mark}}).to_string().into_bytes();
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        models::check_stored(&bytes, &models::running());
    }
}

/// Found by the fuzzer: a timestamp returns after seven others.
#[test]
fn a_timestamp_that_returns_after_many_others_continues_its_ordinals() {
    let seed = [
        97, 97, 97, 97, 97, 169, 97, 97, 97, 97, 1, 0, 32, 3, 91, 0, 1, 2, 33, 34, 33, 64, 2, 2, 2, 41, 97, 97,
    ];
    models::check_resume(&seed, 27, &[97, 97, 97], 9);
}

proptest! {
    // Each builds the command line anew, which takes milliseconds.
    #![proptest_config(cases(200))]

    #[test]
    fn any_flags_are_accepted_or_refused_on_one_line_without_passwords(
        flags in vec(setting(), 1..4)
    ) {
        models::check_flags(&flags);
    }

    #[test]
    fn any_settings_file_is_accepted_or_refused_on_one_line_without_passwords(
        before in "['\"\\[{ ]{0,4}|\\PC{0,4}", after in "['\"\\]} ,]{0,4}|\\PC{0,4}",
        rest in "([a-z.-]{1,9} ?= ?['\"\\[{]?[a-z0-9.:-]{0,9}['\"\\]}]?[\n ]){0,4}|\\PC{0,30}|[\\[\\]{}=.\"'\n0-9a-z-]{0,60}"
    ) {
        models::check_file(&before, &after, &rest);
    }
}
