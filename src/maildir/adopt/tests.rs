use std::io::Write;

use super::*;

/// What a file may have been, in the order in which it is tried.
fn candidates(file: &[u8]) -> Vec<Vec<u8>> {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(file).unwrap();
    let open = || File::open(temp.path());
    let suspect = Suspect::open(&open).unwrap();
    let candidates = suspect.candidates().map(|candidate| {
        let (undo, name) = candidate.unwrap();
        let mut bytes = Vec::new();
        suspect.original(undo).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(BlobId::of(&bytes), name);
        bytes
    });
    candidates.collect()
}

#[test]
fn a_file_is_itself_first_and_once() {
    assert_eq!(candidates(b"")[0], b"");
    assert_eq!(candidates(b"Subject: a\r\n\r\nb\r\n").len(), 2, "as it is, and with LF");
    assert_eq!(candidates(b"Subject: a\n\nb\n"), [&b"Subject: a\n\nb\n"[..], b"Subject: a\r\n\r\nb\r\n"]);
}

#[test]
fn what_was_added_is_taken_back() {
    let original: &[u8] = b"Subject: a\n folded\nX-Other: 1\n\nX-TUID: in the body\nno last line end";
    let stamped = b"Subject: a\n folded\nX-tuid: abc\n def\nX-Other: 1\nX-OfflineIMAP: 1-2\n\nX-TUID: in the body\nno last line end";
    assert_eq!(candidates(stamped)[1], original);
    assert!(!candidates(original)[1..].iter().any(|other| other.starts_with(b"Subject: a\n")));
    let crlf = b"Subject: a\r\n\r\nb\r\rc\r\n\r\r\nd\r";
    assert!(candidates(crlf).contains(&b"Subject: a\n\nb\r\rc\n\r\nd\r".to_vec()));
    let stamped = b"Subject: a\nX-TUID: a\n\nb\n";
    assert!(candidates(stamped).contains(&b"Subject: a\r\n\r\nb\r\n".to_vec()));
    let open = b"Subject: a\n\n--b\n\ntext\n";
    assert_eq!(candidates(b"Subject: a\n\n--b\n\ntext\n--b--\n").last().unwrap(), open);
    assert_eq!(candidates(b"X-TUID: a\nSubject: a\n\n--b\n\ntext\n--b--").last().unwrap(), open);
    assert!(
        candidates(b"Subject: a\n\n--\n")
            .iter()
            .all(|candidate| candidate.ends_with(b"--\n") || candidate.ends_with(b"--\r\n"))
    );
}

#[test]
fn a_large_file_is_read_in_pieces() {
    // A line end lies across the end of what is in memory.
    let head = b"Subject: large\r\nX-TUID: abc\r\n\r\n";
    let mut original = b"Subject: large\n\n".to_vec();
    let mut file = head.to_vec();
    let fill = MAX_SMALL - head.len() - 1;
    file.extend(vec![b'x'; fill]);
    original.extend(vec![b'x'; fill]);
    for line in 0..20_000 {
        let end: (&[u8], &[u8]) = if line % 7 == 0 { (b"\r\r\n", b"\r\n") } else { (b"\r\n", b"\n") };
        file.extend(end.0);
        original.extend(end.1);
        file.extend(b"0123456789");
        original.extend(b"0123456789");
    }
    assert!(file[..MAX_SMALL].ends_with(b"\r") && candidates(&file).contains(&original));
    let mut other = file.clone();
    *other.last_mut().unwrap() = b'8';
    let form = |bytes: &[u8]| Form::of(bytes).unwrap();
    assert_eq!(form(&file), form(&original));
    assert_ne!(form(&file), form(&other));
}

#[test]
fn what_differs_in_space_and_stamps_has_one_form() {
    let form = |bytes: &[u8]| Form::of(bytes).unwrap();
    let original =
        form(b"Subject:  a\r\n b\r\nX-Nil:\r\nStatus: RO\r\n\r\n--b\r\none\rtwo \r=\r\nthree\r\r\n");
    for same in [
        // mbsync
        &b"Subject:  a\n b\nX-Nil:\nStatus: RO\nX-TUID: x\n\n--b\nonetwo =\nthree\n"[..],
        // OfflineIMAP
        b"Subject: a\n b\nX-Nil: \nStatus: RO\n\n\n--b\n\none\ntwo \n=\nthree\n\n--b--\n",
        b"Subject: a b\nX-Nil: \n\n--b\none\ntwo \n=\nthree\n--b--",
    ] {
        assert_eq!(form(same), original, "{}", String::from_utf8_lossy(same));
    }
    for other in [
        &b"Subject: a c\nX-Nil: \n\n--b\none\ntwo \n=\nthree\n"[..],
        b"Subject: a b\nX-Nil: \nReceived: x\n\n--b\none\ntwo \n=\nthree\n",
        b"Subject: a b\nX-Nil: \n\n--b\none\ntwo \n=\nthree\n--c\n",
        b"Subject: a b\nX-Nil: \n\n--b\none\ntwo \n=\nthree\n-- \n",
        b"Subject: a b\nX-Nil: --b\none\ntwo \n=\nthree\n",
    ] {
        assert_ne!(form(other), original, "{}", String::from_utf8_lossy(other));
    }
    let long = [b"\n\n--", &[b'b'; 71][..], b"--\n"].concat();
    assert_ne!(form(&long), form(b"\n\n"), "longer than a boundary can be");
}
