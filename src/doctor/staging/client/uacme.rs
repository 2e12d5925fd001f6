//! uacme: an account and a directory of its own.

use super::order::{Order, Staged};

impl Order<'_> {
    pub(super) fn uacme(&mut self) -> Result<Staged, String> {
        if !self.has("issue") {
            return Err(
                "of uacme's commands only `uacme OPTIONS issue IDENTIFIER…` is a trial".to_owned(),
            );
        }
        self.accept_server(&["--acme-url", "-a"])?;
        self.say("uacme gets an account and a directory of its own (--confdir), whose terms are accepted");
        let mut own = match self.server {
            Some(url) => vec!["--acme-url".to_owned(), url.to_owned()],
            None => vec!["--staging".to_owned()],
        };
        own.extend([
            "--confdir".to_owned(),
            self.scratch.to_owned(),
            "--yes".to_owned(),
        ]);
        let account = [&[self.program.to_owned()], &own[..], &["new".to_owned()]].concat();
        let order = self.command(&[self.arguments, &own].concat());
        Ok(self.with("uacme", vec![account, order]))
    }
}
