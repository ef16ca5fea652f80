//! What the program says of itself to shells, to `man` and to systemd.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::World;

/// Runs another program and wants it to have nothing to say.
#[track_caller]
fn silent(command: &mut Command) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

/// The completions for a shell, in a file.
fn completions(world: &World, shell: &str) -> PathBuf {
    let script = world.ok("none", &["completions", shell]);
    assert!(script.contains("lmtp-mode") && script.contains("conflicts"), "{script}");
    let path = world.path(shell);
    std::fs::write(&path, script).unwrap();
    path
}

/// The manual pages, in a directory.
fn pages(world: &World) -> Vec<PathBuf> {
    world.ok("none", &["man", "man1", "--date", "2026-11-30"]);
    std::fs::read_dir(world.path("man1")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let world = World::new();
    let script = completions(&world, "bash");
    silent(Command::new("bash").arg("-n").arg(&script));
    let complete = format!(
        "source {}; COMP_WORDS=(postmerge serve --lm); COMP_CWORD=2; _postmerge postmerge --lm serve; echo ${{COMPREPLY[*]}}",
        script.display()
    );
    let output = Command::new("bash").args(["--norc", "-c", &complete]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--lmtp --lmtp-mode\n");
}

#[test]
fn each_command_has_a_page() {
    let world = World::new();
    let names: Vec<String> =
        pages(&world).iter().map(|page| page.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for name in
        ["postmerge.1", "postmerge-serve.1", "postmerge-peers-set-address.1", "postmerge-mailbox-rename.1"]
    {
        assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("help") || name.contains("completions")), "{names:?}");
    let page = std::fs::read_to_string(world.path("man1/postmerge-serve.1")).unwrap();
    assert!(page.contains(".TH postmerge-serve 1 2026-11-30 "), "{page}");
    // They need no home, as in the build of a package.
    let mut command = world.command("none", &["completions", "fish"]);
    let output = command.env_remove("HOME").env("XDG_CONFIG_HOME", "/nowhere").output().unwrap();
    assert!(output.status.success());
}

#[test]
#[ignore = "needs zsh and fish"]
fn other_shells_can_read_theirs() {
    let world = World::new();
    for shell in ["zsh", "fish"] {
        silent(Command::new(shell).arg("-n").arg(completions(&world, shell)));
    }
}

#[test]
#[ignore = "needs mandoc"]
fn mandoc_finds_nothing_to_say() {
    let world = World::new();
    silent(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(pages(&world)));
}

#[test]
#[ignore = "needs systemd"]
fn systemd_takes_the_units_and_finds_them_hardened() {
    let world = World::new();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd");
    // 10 is a unit that does nothing for its safety; a user's cannot do much.
    for (unit, exposure, whose) in
        [("postmerge.service", "20", "--system"), ("user/postmerge.service", "65", "--user")]
    {
        let text = std::fs::read_to_string(units.join(unit)).unwrap();
        let here = text.replace("/usr/local/bin/postmerge", env!("CARGO_BIN_EXE_postmerge"));
        assert_ne!(here, text);
        std::fs::create_dir_all(world.path("user")).unwrap();
        let path = world.path(unit);
        std::fs::write(&path, here).unwrap();
        let analyze = |arguments: &[&str]| {
            let mut command = Command::new("systemd-analyze");
            command.args(arguments).arg(&path).env("XDG_RUNTIME_DIR", world.path("run"));
            command
        };
        silent(&mut analyze(&[whose, "verify", "--man=no"]));
        let judged = analyze(&["security", "--offline=true", "--threshold", exposure]).output().unwrap();
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    }
}
