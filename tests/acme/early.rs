//! A client that closes nothing: its window shuts when its last token is withdrawn.

use std::process::Command;

use crate::certbot::Certbot;
use crate::lab::{inside, wait_for};
use crate::world::{Gate, NAME, Names, SOON, World, site};

#[test]
fn certbot_without_a_post_hook_leaves_its_window_to_its_tokens() {
    inside(|| {
        let world = World::new(Names::V4);
        let early = "[window]\nclose_early = \"tokens\"\nsettle = \"1s\"\n";
        let gate = Gate::guard(&format!("{}{early}", site("\"pushed\"")));
        world.with_gate(&gate, |daemon| {
            let (world, daemon) = (&world, &*daemon);
            let options = [
                "--manual",
                "--manual-auth-hook",
                "acmegate hook certbot auth",
                "--manual-cleanup-hook",
                "acmegate hook certbot cleanup",
                "--pre-hook",
                "acmegate open",
            ];
            let certbot = Certbot { world, daemon };
            certbot
                .certonly(Command::new("certbot"), &options)
                .success();
            wait_for(SOON, "it is closed early", || {
                let log = daemon.log();
                let mut lines = log.lines();
                lines
                    .any(|line| line.contains("closed early") && line.contains("tokens-gone"))
                    .then_some(())
            });
            world.shut();
            let chain = format!("certbot/live/{NAME}/fullchain.pem");
            world.verify(&world.directory.at(&chain), NAME);
        });
    });
}
