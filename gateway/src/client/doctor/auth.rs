//! `--auth`: what the gateway makes of each credential that is given, of none, and of one that nobody made (checklist 137).

use super::{
    patient::{Patient, Shown},
    report::{Check, Report},
};

/// A key by its form, and nobody's.
const INVENTED: &str = "hf_holdfastdoctorhasinventedthiskey0000";

pub async fn check(patient: &Patient, given: &[Shown], report: &mut Report) {
    report.add(nobody(patient).await);
    report.add(invented(patient).await);
    for name in ["key", "token", "cookie"] {
        match given.iter().find(|shown| shown.name == name) {
            Some(shown) => report.add(tried(patient, shown).await),
            None => report.add(Check::unseen(called(name), format!("none was given: --{name}"))),
        }
    }
}

fn called(name: &str) -> &'static str {
    match name {
        "key" => "auth key",
        "token" => "auth token",
        _ => "auth cookie",
    }
}

/// Whoever shows nothing is refused, at every place where somebody could come in.
async fn nobody(patient: &Patient) -> Check {
    let name = "auth none";
    let shown = Shown::default();
    let asked = ["/api/auth/session", "/api/handshake"].map(|path| patient.at_door(path, "", &shown));
    let mut said = Vec::new();
    for asked in asked {
        let path = asked.target().split('?').next().unwrap_or_default().to_owned();
        match patient.ask(asked).await {
            Ok(answer) if answer.body["auth"] == "none" => {
                return Check::ill(
                    name,
                    "nobody is asked who he is (AUTH=none): a user_id in the query is believed",
                    "say who may come in: AUTH=keys, jwt, session or proxy (README, Who may open one)",
                );
            }
            Ok(answer) => said.push((path, answer.status)),
            Err(why) => return Check::unseen(name, why),
        }
    }
    match patient.knock_as(&shown).await {
        Ok(knock) => {
            let status = knock.answer.as_ref().map_or_else(|answer| answer.status, |_| 101);
            said.push((patient.door.clone(), status));
        }
        Err(why) => return Check::unseen(name, why),
    }
    let seen = said.iter().map(|(path, status)| format!("{path} {status}")).collect::<Vec<_>>().join(", ");
    match said.iter().all(|(_, status)| *status == 401) {
        true => Check::well(name, format!("whoever shows no credential is refused: {seen}")),
        false => Check::ill(
            name,
            format!("whoever shows no credential is not refused everywhere: {seen}"),
            "see what AUTH says on each instance (holdfast check), and that the proxy adds no credential of its own",
        ),
    }
}

async fn invented(patient: &Patient) -> Check {
    let name = "auth false";
    let shown = Shown { name: "invented", header: Some(("X-API-Key", INVENTED.to_owned())) };
    match patient.ask(patient.at_door("/api/auth/session", "", &shown)).await {
        Ok(answer) if answer.status == 401 => {
            Check::well(name, format!("an invented key is refused: {}", answer.problem()))
        }
        Ok(answer) if answer.body["auth"] == "none" => Check::unseen(name, "keys are not looked at while AUTH=none"),
        Ok(answer) if answer.status == 200 => {
            Check::ill(name, "an invented key is let in", "see what AUTH says on each instance (holdfast check)")
        }
        Ok(answer) => Check::unseen(name, answer.problem()),
        Err(why) => Check::unseen(name, why),
    }
}

/// What it is taken for, and whether the doors agree.
async fn tried(patient: &Patient, shown: &Shown) -> Check {
    let name = called(shown.name);
    let session = match patient.ask(patient.at_door("/api/auth/session", "", shown)).await {
        Ok(session) => session,
        Err(why) => return Check::unseen(name, why),
    };
    if session.status != 200 {
        let hint = session.hint().unwrap_or_else(|| "the log of the gateway says why".to_owned());
        return Check::ill(name, session.problem(), hint);
    }
    let said = |member: &str| session.body[member].as_str().unwrap_or("nobody").to_owned();
    if said("auth") == "none" {
        return Check::unseen(name, "it is not looked at while AUTH=none");
    }
    let seen = format!("taken for user {} by AUTH={}", said("userId"), said("auth"));
    match patient.ask(patient.at_door("/api/handshake", &format!("path={}", patient.door), shown)).await {
        Ok(answer) if answer.body["ok"] == true => {}
        Ok(answer) => {
            let hint = answer.hint().unwrap_or_else(|| "the log of the gateway says why".to_owned());
            return Check::ill(name, format!("{seen}, but /api/handshake says {}", answer.problem()), hint);
        }
        Err(why) => return Check::unseen(name, why),
    }
    match patient.knock_as(shown).await.map(|knock| knock.answer) {
        Ok(Ok(socket)) => {
            socket.close().await;
            Check::well(name, format!("{seen}, and {} opens", patient.door))
        }
        Ok(Err(answer)) => {
            let hint = answer.hint().unwrap_or_else(|| "the log of the gateway says why".to_owned());
            Check::ill(name, format!("{seen}, but {} says {}", patient.door, answer.problem()), hint)
        }
        Err(why) => Check::ill(
            name,
            format!("{seen}, but {} does not open: {why}", patient.door),
            "the error log of the proxy says why",
        ),
    }
}
