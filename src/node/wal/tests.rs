use super::*;

fn open(dir: &Path, policy: SyncPolicy) -> (Wal, Replayed, Vec<Vec<u8>>) {
    let mut read = Vec::new();
    let (wal, replayed) = Wal::open(dir, policy, |payload| {
        read.push(payload.to_vec());
        Ok(())
    })
    .unwrap();
    (wal, replayed, read)
}

fn payload(i: usize) -> Vec<u8> {
    format!("record {i} {}", "x".repeat(i % 50)).into_bytes()
}

#[test]
fn what_was_acknowledged_is_read_back_from_a_torn_log() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, ..) = open(dir.path(), SyncPolicy::Never);
    let mut ends = vec![0];
    for i in 0..50 {
        wal.append(&payload(i)).unwrap();
        ends.push(wal.size() as usize);
    }
    drop(wal);
    let whole = fs::read(read::segment_path(dir.path(), 1)).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..100 {
        let cut = random.usize(0..=whole.len());
        let dir = tempfile::tempdir().unwrap();
        fs::write(read::segment_path(dir.path(), 1), &whole[..cut]).unwrap();
        let (wal, replayed, read) = open(dir.path(), SyncPolicy::Never);
        let complete = ends.iter().filter(|e| **e <= cut).count() - 1;
        assert_eq!(read, (0..complete).map(payload).collect::<Vec<_>>());
        assert_eq!((replayed.torn_bytes as usize, replayed.damaged), (cut - ends[complete], 0));
        wal.append(b"more").unwrap();
        drop(wal);
        let (_, replayed, read) = open(dir.path(), SyncPolicy::Never);
        assert_eq!((read.len(), replayed.torn_bytes), (complete + 1, 0));
    }
}

#[test]
fn a_flipped_bit_costs_its_record_only() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, ..) = open(dir.path(), SyncPolicy::Never);
    (0..40).for_each(|i| wal.append(&payload(i)).unwrap());
    drop(wal);
    let whole = fs::read(read::segment_path(dir.path(), 1)).unwrap();
    for bit in (0..whole.len() * 8).step_by(37) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let dir = tempfile::tempdir().unwrap();
        fs::write(read::segment_path(dir.path(), 1), &bytes).unwrap();
        let (_, replayed, read) = open(dir.path(), SyncPolicy::Never);
        assert_eq!(read.len(), 39, "bit {bit}");
        assert!(read.iter().all(|r| (0..40).any(|i| *r == payload(i))));
        assert!(replayed.damaged == 1 || replayed.torn_bytes > 0);
    }
}

#[test]
fn many_writers_share_the_disk_and_a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, ..) = open(dir.path(), SyncPolicy::Always);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let wal = &wal;
            scope.spawn(move || (0..25).for_each(|i| wal.append(&payload(writer * 100 + i)).unwrap()));
        }
    });
    assert!(Wal::open(dir.path(), SyncPolicy::Never, |_| Ok(())).is_err());
    drop(wal);
    let (_, _, mut read) = open(dir.path(), SyncPolicy::Always);
    let mut expected: Vec<_> = (0..8).flat_map(|w| (0..25).map(move |i| payload(w * 100 + i))).collect();
    read.sort();
    expected.sort();
    assert_eq!(read, expected);
}

#[test]
fn a_checkpoint_replaces_what_was_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, ..) = open(dir.path(), SyncPolicy::Never);
    wal.append(b"old").unwrap();
    wal.checkpoint(|put| put(b"kept")).unwrap();
    wal.append(b"new").unwrap();
    let failed = wal.checkpoint(|put| put(b"lost").and(Err(io::ErrorKind::StorageFull.into())));
    assert_eq!(failed, Err(LogError::Full));
    wal.append(b"newer").unwrap();
    drop(wal);
    let (_, replayed, read) = open(dir.path(), SyncPolicy::Never);
    assert_eq!(read, [b"kept".to_vec(), b"new".to_vec(), b"newer".to_vec()]);
    assert_eq!(replayed.damaged, 0);
}

/// Marks that another version may have: far from ours, and as near as one bit.
const OTHER_MARKS: [[u8; 4]; 3] =
    [[0xf1, 0x57, 0xe1, 0x9a], [0xb2, 0x6d, 0x1e, 0xc4], [0xb2, 0x6d, 0x1e, 0xc2]];

#[test]
fn a_log_of_another_version_is_refused_and_left_alone() {
    for file in ["0000000001.wal", "0000000001.checkpoint", "0000000002.wal"] {
        for mark in OTHER_MARKS {
            let dir = tempfile::tempdir().unwrap();
            // A start would cut this one's end off.
            let mut bytes = Vec::new();
            frame(b"ours", &mut bytes);
            fs::write(dir.path().join("0000000001.wal"), [&bytes[..], b"torn"].concat()).unwrap();
            bytes.clear();
            for i in 0..3 {
                let from = bytes.len();
                frame(&payload(i), &mut bytes);
                bytes[from..from + 4].copy_from_slice(&mark);
            }
            fs::write(dir.path().join(file), &bytes).unwrap();
            let content = || {
                let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
                let mut files: Vec<_> = files.filter(|path| path.extension().is_some()).collect();
                files.sort();
                files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
            };
            let before = content();
            for _ in 0..2 {
                let refused = Wal::open(dir.path(), SyncPolicy::Never, |_| Ok(())).unwrap_err().to_string();
                assert!(refused.contains("another version") && refused.contains(file), "{refused}");
            }
            assert_eq!(content(), before, "{file} {mark:02x?}");
        }
    }
}

#[test]
fn what_is_written_behind_ours_by_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    (0..3).for_each(|i| frame(&payload(i), &mut bytes));
    let from = bytes.len();
    frame(b"theirs", &mut bytes);
    bytes[from + 3] ^= 0x07;
    fs::write(dir.path().join("0000000001.wal"), &bytes).unwrap();
    let refused = Wal::open(dir.path(), SyncPolicy::Never, |_| Ok(())).unwrap_err().to_string();
    assert!(refused.contains(&format!("the record at {from} is marked")), "{refused}");
    // So is a record that says of itself that it is unknown.
    bytes[from + 3] ^= 0x07;
    fs::write(dir.path().join("0000000001.wal"), &bytes).unwrap();
    let each = |payload: &[u8]| match payload {
        b"theirs" => Err(RecordError::Version("a record is of kind 9".to_owned())),
        _ => Ok(()),
    };
    let refused = Wal::open(dir.path(), SyncPolicy::Never, each).unwrap_err().to_string();
    assert!(
        refused.contains("kind 9") && fs::read(dir.path().join("0000000001.wal")).unwrap() == bytes,
        "{refused}"
    );
}

#[test]
fn what_went_into_a_file_without_a_name_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("wal");
    for policy in [SyncPolicy::Always, SyncPolicy::Never] {
        let (wal, ..) = open(&folder, policy);
        wal.append(b"safe").unwrap();
        assert_eq!(wal.probe(), Ok(()));
        let segment = read::segment_path(&folder, wal.writer.lock().number);
        fs::remove_file(&segment).unwrap();
        assert_eq!(wal.append(b"lost"), Err(LogError::Gone(segment)));
        wal.append(b"into another file").unwrap();
        assert!(wal.probe().is_ok());
        let moved = dir.path().join(format!("{policy:?}"));
        fs::rename(&folder, &moved).unwrap();
        assert!(matches!(wal.append(b"lost"), Err(LogError::Gone(_))));
        assert!(matches!(wal.append(b"lost"), Err(LogError::Io(text)) if text.contains("wal")));
        assert_eq!(wal.probe(), Err(LogError::Gone(folder.clone())));
    }
}

#[test]
fn what_is_damaged_is_kept_when_a_checkpoint_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let names = |part: &str| {
        let all = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut all: Vec<_> = all.filter(|name| name.contains(part)).collect();
        all.sort();
        all
    };
    for round in 0..12_u64 {
        let (wal, ..) = open(dir.path(), SyncPolicy::Never);
        let number = wal.writer.lock().number + 1;
        (0..3).for_each(|i| wal.append(&payload(i)).unwrap());
        drop(wal);
        // In the middle of a segment, or in the checkpoint.
        let flip = |path: PathBuf| {
            let mut bytes = fs::read(&path).unwrap();
            bytes[HEAD + 1] ^= 1;
            fs::write(path, bytes).unwrap();
        };
        flip(read::segment_path(dir.path(), number));
        if round == 1 {
            flip(read::checkpoint_path(dir.path(), number - 1));
        }
        let (wal, replayed, _) = open(dir.path(), SyncPolicy::Never);
        assert_eq!(replayed.damaged, if round == 1 { 2 } else { 1 }, "{:?}", replayed.damage);
        assert!(replayed.damaged_bytes >= HEAD as u64 && replayed.gaps.is_empty());
        wal.checkpoint(|put| put(b"kept").and_then(|()| put(b"as well"))).unwrap();
        wal.clear().unwrap();
        let kept = names(".corrupt-");
        assert_eq!(kept.len() as u64, (round + 1 + u64::from(round > 0)).min(8), "{kept:?}");
        assert_eq!(names("").len(), kept.len() + 2, "the checkpoint and the lock");
    }
    assert!(names(".corrupt-").contains(&"0000000002.checkpoint.corrupt-0".to_owned()));
}

#[test]
fn what_is_cut_off_the_end_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let copies = || {
        let paths = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths.filter(|path| path.to_string_lossy().contains(".corrupt-")).collect();
        paths.sort();
        paths
    };
    let (wal, ..) = open(dir.path(), SyncPolicy::Always);
    (0..3).for_each(|i| wal.append(&payload(i)).unwrap());
    drop(wal);
    let path = read::segment_path(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    let last = whole.len() - HEAD - payload(2).len();
    // Zeros are no record: a file system leaves them after a crash.
    fs::write(&path, [&whole[..], &[0; 50]].concat()).unwrap();
    let (_, replayed, read) = open(dir.path(), SyncPolicy::Always);
    assert_eq!((read.len(), replayed.torn_bytes, copies().len()), (3, 50, 0));
    for round in 0..10 {
        // The last record was acknowledged, and was hit.
        let mut bytes = whole.clone();
        bytes[last + HEAD] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (_, replayed, read) = open(dir.path(), SyncPolicy::Always);
        assert_eq!((read.len(), replayed.torn_bytes as usize), (2, whole.len() - last));
        assert_eq!(fs::read(&path).unwrap(), &whole[..last]);
        assert_eq!(copies().len(), 8.min(round + 1));
        assert!(copies().iter().all(|copy| fs::read(copy).unwrap() == bytes[last..]));
    }
    open(dir.path(), SyncPolicy::Always);
    assert_eq!(copies().len(), 8, "a sound end needs no copy");
}

#[test]
fn missing_files_are_told_and_refused_writes_leave_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, ..) = open(dir.path(), SyncPolicy::Never);
    wal.append(b"1").unwrap();
    drop(wal);
    for i in 2..8 {
        let (wal, replayed, _) = open(dir.path(), SyncPolicy::Never);
        assert_eq!(replayed.gaps, [""; 0], "before {i}");
        wal.room().leave(Some(0));
        assert_eq!(wal.append(b"refused"), Err(LogError::Full));
        wal.room().leave(None);
        wal.append(format!("{i}").as_bytes()).unwrap();
    }
    for number in [1, 3, 4] {
        fs::remove_file(read::segment_path(dir.path(), number)).unwrap();
    }
    let (wal, replayed, read) = open(dir.path(), SyncPolicy::Never);
    assert_eq!(replayed.gaps, ["number 1", "numbers 3 to 4"]);
    assert_eq!(read, [b"2", b"5", b"6", b"7"]);
    wal.checkpoint(|put| put(b"all")).unwrap();
    wal.append(b"more").unwrap();
    drop(wal);
    assert!(open(dir.path(), SyncPolicy::Never).1.gaps.is_empty());
}

#[test]
fn what_is_no_file_of_a_log_is_named() {
    for (name, folder) in [("18446744073709551615.wal", false), ("0000000001.wal", true)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        if folder { fs::create_dir(&path) } else { fs::write(&path, "") }.unwrap();
        let refused = Wal::open(dir.path(), SyncPolicy::Never, |_| Ok(())).unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
    }
}
