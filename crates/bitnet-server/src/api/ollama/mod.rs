//! Ollama's interface: the same work as behind OpenAI's, in another form. Fields that its servers do not know are ignored,
//! as they do; what a client asks for and this server lacks is refused.

mod answer;
mod chat;
mod embed;
mod generate;
mod manage;
mod models;
mod options;
mod time;

pub(crate) use chat::chat;
pub(super) use chat::plan as plan_chat;
pub(crate) use embed::{embed, embeddings};
pub(super) use embed::{plan as plan_embed, plan_old as plan_embeddings};
pub(crate) use generate::generate;
pub(super) use generate::plan as plan_generate;
pub(crate) use manage::{pull, refused};
pub(crate) use models::{described, ps, root, show, tags, version};
