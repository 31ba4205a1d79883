//! A verb on an origin's name: from the swarm where it leads there, back to rsync where it does not.

use super::attach::{self, Led};
use super::classic::Classic;
use super::nominate;
use super::run::Task;
use crate::attach::origin::Origin;
use crate::attach::{from_pin, to_pin};
use crate::error::{Exit, Failure};
use crate::reference::Reference;
use crate::ui::Ui;
use crate::verbs::Verb;
use crate::verbs::pass::Pass;
use crate::verbs::verify::Verify;

impl Task<'_> {
    /// A verb on an origin: from the swarm where one is offered and answers, else the classic way. A replica tells its origin of
    /// itself where that is wished.
    ///
    /// # Errors
    /// The verb's own; 10 where neither way leads anywhere, rsync's codes where it did the work, 44 where that is not the tree.
    pub(super) async fn attached(
        &self,
        origin: &Origin,
        verb: Verb,
        classic: Option<Classic>,
        accept_new: bool,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let classic = classic.filter(|_| matches!(origin, Origin::Daemon(_)));
        let only = classic.as_ref().is_some_and(|classic| classic.only);
        let led = if only { Led::default() } else { attach::lead(self.config, ui, origin, accept_new).await? };
        let is_replica = matches!(&verb, Verb::Pass(pass) if pass.mirror && !pass.dry_run);
        self.bring(origin, verb, classic, &led, ui).await?;
        if let (Origin::Daemon(daemon), Some(reference)) = (origin, &led.reference)
            && led.nominates
            && is_replica
            && let Err(failure) = nominate::introduce(self.config, daemon, &reference.module.to_string()).await
        {
            // The replica is as good without.
            tracing::info!(%origin, why = failure.message, "not nominated");
        }
        Ok(())
    }

    async fn bring(
        &self,
        origin: &Origin,
        mut verb: Verb,
        classic: Option<Classic>,
        led: &Led,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let mut tried = led.tried.clone();
        if let Some(reference) = &led.reference {
            verb.set_reference(reference.to_string());
            lead_others(&mut verb, origin, reference);
            match self.work(verb.clone()).await {
                Err(failure) if is_silence(failure.code) && classic.is_some() => tried.push(failure.message),
                done => return done,
            }
        }
        let hint = format!("tried: {}", tried.join("; "));
        let nobody = || Failure::new(Exit::Nobody, format!("{origin} offers no module of a swarm")).hint(hint);
        let classic = classic.ok_or_else(nobody)?;
        classic.check(&tried)?;
        if led.reference.is_some() {
            classic.step_aside().await;
        }
        classic.guard().await?;
        let done = classic.run(self.screen.is_json()).await?;
        let is_told = match (&led.reference, verb) {
            (Some(_), Verb::Pass(pass)) if !pass.dry_run && pass.dest.is_dir() => self.check(*pass, ui).await?,
            _ => false,
        };
        match done.filter(|_| !is_told) {
            Some(done) => ui.answer(&done, ""),
            None => Ok(()),
        }
    }

    /// What rsync brought is checked by the tree, where its head is known. A replica that is right is held from now on. True if a
    /// pass has told that it is done.
    async fn check(&self, pass: Pass, ui: &Ui) -> Result<bool, Failure> {
        let verify = Verify { reference: Some(pass.reference.clone()), ..Verify::after(&pass) };
        if pass.mirror && !self.follows {
            match self.work(Verb::Pass(Box::new(Pass { adopt: true, ..pass }))).await {
                // What nobody has otherwise is missing or wrong here too: it is named below.
                Err(failure) if is_silence(failure.code) => {}
                done => return done.map(|()| true),
            }
        }
        match self.work(Verb::Verify(verify)).await {
            Err(failure) if is_silence(failure.code) => {
                ui.warn(&format!("brought by rsync, and not checked: {}", failure.message));
                Ok(false)
            }
            done => done.map(|()| false),
        }
    }
}

/// The further sources, where they are of the same module of the same origin.
fn lead_others(verb: &mut Verb, origin: &Origin, reference: &Reference) {
    let (Verb::Pass(pass), Origin::Daemon(daemon)) = (verb, origin) else { return };
    let kept = to_pin(reference, origin);
    for text in &mut pass.more {
        if let Some(Ok(other)) = Origin::parse(text, Some(daemon.port))
            && other.key() == origin.key()
            && let Some(found) = from_pin(&kept, &other)
        {
            *text = found.to_string();
        }
    }
}

/// Nobody of the swarm answered, or nobody had what was wanted.
fn is_silence(code: Exit) -> bool {
    matches!(code, Exit::Nobody | Exit::NoHead | Exit::Missing | Exit::ConnectTimeout)
}
