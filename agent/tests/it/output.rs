//! Output: live, whole, and never in the way.

use std::time::Duration;

use model::{
    StageOutcome,
    protocol::{
        agent::{AgentCommand, ReportKind},
        log::{CHUNK_BYTES_MAX, Stream},
    },
};

use crate::office::{Office, assignment, marks, said, sh, stage, until};

#[tokio::test]
async fn output_arrives_while_the_stage_runs() {
    let mut office = Office::open().await;
    let gate = office.path("gate");
    let assignment = assignment(stage("live", vec![sh(&format!("printf first; until [ -e {} ]; do sleep 0.01; done", gate.display()))]), 1);
    office.award(&assignment).await;
    let chunk = office.chunk().await;
    assert_eq!((chunk.bytes.as_slice(), chunk.header.lease), (b"first".as_slice(), assignment.lease.clone()));
    std::fs::write(gate, "").unwrap();
    assert_eq!(office.result(&assignment.lease).await.0, StageOutcome::Success);
}

#[tokio::test]
async fn any_bytes_are_kept_whole_with_a_mark_for_each_chunk() {
    let mut office = Office::open().await;
    let script = r"set +x; printf '\377\000x'; sleep 0.05; printf '\303' >&2; sleep 0.05; printf 'no line feed'";
    let assignment = assignment(stage("bytes", vec![sh(script)]), 1);
    office.award(&assignment).await;
    office.result(&assignment.lease).await;
    let (bytes, index) = office.stored(&assignment.lease).await;
    let marks = marks(&index);
    let of = |stream| said(&bytes, &index, stream);
    assert_eq!(of(Stream::Out), b"\xff\0xno line feed");
    assert_eq!(of(Stream::Err), b"+ set +x\n\xc3");
    assert!(of(Stream::Otto).starts_with(b"[otto] step 1/1: sh 'set +x;"));
    let mut offset = 0;
    for mark in &marks {
        assert_eq!(mark.offset, offset);
        offset += u64::from(mark.length);
    }
    assert_eq!(offset, bytes.len() as u64);
    let mut live = Vec::new();
    while let Some(message) = office.logs.try_next() {
        live.extend(model::protocol::log::LogChunk::decode(&message.payload).unwrap().bytes);
    }
    assert_eq!(live, bytes);
}

#[tokio::test]
async fn a_line_that_is_said_in_pieces_stays_whole_whatever_the_other_stream_says() {
    let mut office = Office::open().await;
    let script = "set +x; i=0; while [ $i -lt 500 ]; do printf '+ ' >&2; printf 'err %s\n' $i >&2; echo out $i; i=$((i + 1)); done";
    let assignment = assignment(stage("pieces", vec![sh(script)]), 1);
    office.award(&assignment).await;
    office.result(&assignment.lease).await;
    let text = String::from_utf8(office.stored(&assignment.lease).await.0.into()).unwrap();
    let is_whole = |line: &&str| {
        let number = line.strip_prefix("+ err ").or_else(|| line.strip_prefix("out "));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let broken: Vec<&str> = text.lines().skip_while(|line| *line != "+ set +x").skip(1).filter(|line| !is_whole(line)).collect();
    assert_eq!(broken, Vec::<&str>::new());
    assert_eq!(text.lines().filter(|line| is_whole(line)).count(), 1_000);
}

#[tokio::test]
async fn what_the_shell_says_of_a_command_stands_before_what_the_command_says() {
    let mut office = Office::open().await;
    let assignment = assignment(stage("traced", vec![sh("for i in $(seq 1 500); do echo $i; done")]), 1);
    office.award(&assignment).await;
    office.result(&assignment.lease).await;
    let text = String::from_utf8(office.stored(&assignment.lease).await.0.into()).unwrap();
    let mut traced = 0;
    let late: Vec<&str> = text
        .lines()
        .filter(|line| {
            let trace = line.strip_prefix("+ echo ").and_then(|number| number.parse::<u32>().ok());
            traced = trace.unwrap_or(traced);
            line.parse::<u32>().is_ok_and(|number| number > traced)
        })
        .collect();
    assert_eq!((late, traced), (Vec::new(), 500));
}

#[tokio::test]
async fn much_output_is_complete() {
    let mut office = Office::open().await;
    let assignment = assignment(stage("much", vec![sh("set +x; head -c 3000000 /dev/zero; echo end")]), 1);
    office.award(&assignment).await;
    office.result(&assignment.lease).await;
    let (bytes, index) = office.stored(&assignment.lease).await;
    assert!(bytes.ends_with(b"\0end\n"));
    let zeros: Vec<u8> = said(&bytes, &index, Stream::Out).into_iter().take_while(|byte| *byte == 0).collect();
    assert_eq!(zeros.len(), 3_000_000);
    assert!(marks(&index).iter().all(|mark| mark.length as usize <= CHUNK_BYTES_MAX));
}

#[tokio::test]
async fn output_that_never_ends_does_not_outlive_a_cancel() {
    let mut office = Office::open().await;
    let assignment = assignment(stage("endless", vec![sh("set +x; yes")]), 1);
    office.award(&assignment).await;
    office.chunk().await;
    office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force: false }).await;
    assert_eq!(office.result(&assignment.lease).await.0, StageOutcome::Aborted);
    let stored = office.report(ReportKind::LogStored).await;
    assert_eq!(stored.lease, assignment.lease);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_a_process_are_never_lost() {
    let mut office = Office::open().await;
    let steps = (0..300).map(|number| sh(&format!("echo {number}"))).collect();
    let (outcome, _, said) = office.run("words", steps).await;
    assert_eq!(outcome, StageOutcome::Success);
    assert!(said.lines().eq((0..300).map(|number| number.to_string())), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_parts_are_stored_while_the_stage_runs_and_those_who_follow_hear_where() {
    let mut office = Office::open().await;
    let gate = office.path("gate");
    // A line of ten megabytes of a byte that stands in no path, and no other.
    let script = format!("set +x; head -c 10000000 /dev/zero | tr '\\0' '\\1'; until [ -e {} ]; do sleep 0.01; done; echo", gate.display());
    let assignment = assignment(stage("long", vec![sh(&script)]), 1);
    office.award(&assignment).await;
    let announced = office.segment().await;
    assert_eq!((announced.offset, announced.lines_before), (0, 0));
    let bytes = office.blobs.get(&announced.bytes).await.unwrap();
    assert_eq!(bytes.len() as u64, announced.length);
    std::fs::write(gate, "").unwrap();
    assert_eq!(office.result(&assignment.lease).await.0, StageOutcome::Success);
    let log = office.stored_log(&assignment.lease).await;
    assert_eq!(log.segments[0], announced);
    let (mut offset, mut said) = (0, Vec::new());
    for segment in &log.segments {
        assert_eq!(segment.offset, offset);
        assert_eq!(segment.lines_before, memchr::memchr_iter(b'\n', &said).count() as u64);
        said.extend(office.stored_part(segment).await.0);
        offset += segment.length;
    }
    assert_eq!((offset, said.len() as u64), (log.length, log.length));
    // What the shell says on its standard error may stand anywhere between them.
    assert_eq!(memchr::memchr_iter(1, &said).count(), 10_000_000);
}

#[tokio::test]
async fn who_does_not_know_what_a_running_stage_has_said_is_told_where_it_lies() {
    let mut office = Office::open().await;
    let gate = office.path("gate");
    // What it says does not stand in its text.
    let script = format!("set +x; printf %s%s sa id; until [ -e {} ]; do sleep 0.01; done; printf %s%s mo re", gate.display());
    let assignment = assignment(stage("long", vec![sh(&script)]), 1);
    office.award(&assignment).await;
    until("it to be written down", || has(&office.kept_output(), b"said")).await;
    let lease = assignment.lease.clone();
    office.send(AgentCommand::TellOutput { lease: lease.clone() }).await;
    let told = office.segment().await;
    assert_eq!(told.offset, 0);
    assert!(has(&office.blobs.get(&told.bytes).await.unwrap(), b"said"));
    office.send(AgentCommand::TellOutput { lease: lease.clone() }).await;
    assert_eq!(office.segment().await, told, "it is told again");
    std::fs::write(gate, "").unwrap();
    assert_eq!(office.result(&lease).await.0, StageOutcome::Success);
    let (bytes, _) = office.stored(&lease).await;
    assert!(has(&bytes, b"said") && has(&bytes, b"more"));
}

fn has(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Bytes of a line that nobody wants to read.
const LONG_LINE_BYTES: u64 = 1_000_000_000;

/// Ten seconds without optimisation, on a machine that does nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_without_a_line_feed_is_complete_and_who_goes_on_is_ended() {
    let mut office = Office::open().await;
    office.patience = Duration::from_mins(5);
    let endless = "set +x; trap '' TERM PIPE; setsid cat /dev/zero & cat /dev/zero";
    let steps = vec![sh(&format!("set +x; head -c {LONG_LINE_BYTES} /dev/zero")), sh(endless)];
    let assignment = assignment(stage("long", steps), 1);
    office.award(&assignment).await;
    let (outcome, reason) = office.result(&assignment.lease).await;
    let expected = "the stage said more than 1024 MiB, with what is kept of when and where it said it";
    assert_eq!((outcome, reason.as_deref()), (StageOutcome::Failure, Some(expected)));
    let log = office.stored_log(&assignment.lease).await;
    let (mut offset, mut first, mut last) = (0, 0, Vec::new());
    for segment in &log.segments {
        assert_eq!(segment.offset, offset);
        offset += segment.length;
        let (bytes, index) = office.stored_part(segment).await;
        let of_first = marks(&index).into_iter().filter(|mark| (mark.step, mark.stream) == (0, Stream::Out));
        first += of_first.map(|mark| u64::from(mark.length)).sum::<u64>();
        last = bytes.to_vec();
    }
    assert_eq!((first, offset), (LONG_LINE_BYTES, log.length));
    assert!(log.length > LONG_LINE_BYTES && last.ends_with(format!("[otto] {expected}\n").as_bytes()), "{}", log.length);
    until("an empty spool", || office.leftovers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_would_steer_a_terminal_is_kept_as_it_came() {
    let mut office = Office::open().await;
    let script = r"set +x; printf '\033]0;title\007\033[2J\302\2332J\r\b\200\n'";
    let assignment = assignment(stage("escapes", vec![sh(script)]), 1);
    office.award(&assignment).await;
    office.result(&assignment.lease).await;
    let (bytes, index) = office.stored(&assignment.lease).await;
    assert_eq!(said(&bytes, &index, Stream::Out), b"\x1b]0;title\x07\x1b[2J\xc2\x9b2J\r\x08\x80\n");
    // What Otto itself says of the step is text on a line.
    assert!(said(&bytes, &index, Stream::Otto).iter().all(|byte| *byte == b'\n' || !byte.is_ascii_control()));
}
