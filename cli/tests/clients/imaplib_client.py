"""Keeps a Maildir in step with an IMAP server, with nothing but Python's own imaplib.

Usage: imaplib_client.py PORT USER PASSWORD MAIL STATE
"""

import imaplib
import json
import os
import re
import sys

LETTERS = {"D": r"\Draft", "F": r"\Flagged", "R": r"\Answered", "S": r"\Seen", "T": r"\Deleted"}


def ok(reply):
    kind, data = reply
    if kind != "OK":
        sys.exit(f"the server said {kind} {data}")
    return data


def flags(letters):
    return "(" + " ".join(LETTERS[letter] for letter in sorted(letters)) + ")"


def letters(line):
    shown = {flag.decode() for flag in imaplib.ParseFlags(line)}
    return "".join(letter for letter, flag in LETTERS.items() if flag in shown)


class Folder:
    """A mailbox and its Maildir."""

    def __init__(self, imap, mailbox, directory, known):
        self.imap, self.mailbox, self.directory = imap, mailbox, directory
        for name in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(directory, name), exist_ok=True)
        ok(imap.select(mailbox))
        self.validity = int(imap.response("UIDVALIDITY")[1][0])
        # By UID: the file's name without its letters, and the letters that both sides had.
        self.known = {int(uid): pair for uid, pair in known.get("messages", {}).items()}
        if known.get("validity") != self.validity:
            for base, _ in self.known.values():
                self.remove(base)
            self.known = {}

    def near(self):
        found = {}
        for name in ("cur", "new"):
            for file in os.listdir(os.path.join(self.directory, name)):
                base, _, info = file.partition(":2,")
                found[base] = (os.path.join(self.directory, name, file), info)
        return found

    def far(self):
        found = {}
        for line in ok(self.imap.uid("FETCH", "1:*", "(FLAGS)")):
            if line is not None:
                found[int(re.search(rb"UID (\d+)", line)[1])] = letters(line)
        return found

    def remove(self, base):
        if base in self.near():
            os.unlink(self.near()[base][0])

    def rename(self, path, base, info):
        os.rename(path, os.path.join(self.directory, "cur", f"{base}:2,{info}"))

    def sync(self):
        near, far = self.near(), self.far()
        for uid, (base, before) in list(self.known.items()):
            if uid not in far:
                self.remove(base)
                del self.known[uid]
            elif base not in near:
                ok(self.imap.uid("STORE", str(uid), "+FLAGS.SILENT", r"(\Deleted)"))
                ok(self.imap.uid("EXPUNGE", str(uid)))
                del self.known[uid], far[uid]
            else:
                path, here = near[base]
                self.merge(uid, base, path, set(before), set(here), set(far[uid]))
        self.download(sorted(far.keys() - self.known.keys()))
        self.upload()
        return {"validity": self.validity, "messages": self.known}

    def merge(self, uid, base, path, before, here, there):
        after = (before | here | there) - (before - here) - (before - there)
        if after - there:
            ok(self.imap.uid("STORE", str(uid), "+FLAGS.SILENT", flags(after - there)))
        if there - after:
            ok(self.imap.uid("STORE", str(uid), "-FLAGS.SILENT", flags(there - after)))
        info = "".join(sorted(after))
        if after != here:
            self.rename(path, base, info)
        self.known[uid] = (base, info)

    def download(self, uids):
        # One command for all: literals of many messages in one answer.
        if not uids:
            return
        data = ok(self.imap.uid("FETCH", ",".join(map(str, uids)), "(UID FLAGS BODY.PEEK[])"))
        for item, tail in zip(data, data[1:]):
            if not isinstance(item, tuple):  # the end of a message, or flags that somebody changed
                continue
            line, body = item
            uid = int(re.search(rb"UID (\d+)", line + tail)[1])
            base, info = f"{self.validity}.{uid}.imaplib", letters(line + tail)
            with open(os.path.join(self.directory, "cur", f"{base}:2,{info}"), "wb") as file:
                file.write(body)
            self.known[uid] = (base, info)
        missing = set(uids) - self.known.keys()
        if missing:
            sys.exit(f"no body came for {missing}")

    def upload(self):
        ours = {base for base, _ in self.known.values()}
        for base, (path, info) in self.near().items():
            if base in ours:
                continue
            with open(path, "rb") as file:
                ok(self.imap.append(self.mailbox, flags(info), None, file.read()))
            uid = int(self.imap.response("APPENDUID")[1][0].split()[1])
            self.rename(path, base, info)
            self.known[uid] = (base, info)


def main():
    port, user, password, mail, state_file = sys.argv[1:]
    state = {}
    if os.path.exists(state_file):
        with open(state_file) as file:
            state = json.load(file)
    with imaplib.IMAP4("127.0.0.1", int(port)) as imap:
        ok(imap.login(user, password))
        for line in ok(imap.list()):
            mailbox = line.decode().rsplit(" ", 1)[1].strip('"')
            folder = Folder(imap, mailbox, os.path.join(mail, mailbox), state.get(mailbox, {}))
            state[mailbox] = folder.sync()
    with open(state_file, "w") as file:
        json.dump(state, file)


main()
