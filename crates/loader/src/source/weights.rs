//! The [`WeightSource`](bitnet_model::WeightSource) of checkpoints: configuration, then each tensor in the model's own
//! conventions.
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

use super::*;

impl WeightSource for Checkpoint {
    type Error = LoadError;

    fn config(&self) -> &ModelConfig {
        &self.reading.config
    }

    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, LoadError> {
        let c = self.config();
        let (rows, cols) = c.projection_shape(layer, which);
        let mixer = c.mixer(layer);
        // Packed rows are in the model's order, whatever order the family's files have.
        if let Some(w) = self.packed_matrix(&(Names::Gguf.projection(layer, which, mixer) + ".weight"))? {
            return Ok(w);
        }
        let base = self.names.projection(layer, which, mixer);
        let group = self.names.groups(mixer).find(|(_, g)| g.contains(&which));
        let merged = group.map(|(g, members)| (members, self.names.merged(layer, g)));
        let w = match merged {
            Some((group, merged))
                if self.store.shape(&format!("{base}.weight")).is_none()
                    && self.store.shape(&format!("{merged}.weight")).is_some() =>
            {
                let all: Vec<usize> = group.iter().map(|p| c.projection_shape(layer, *p).0).collect();
                let start = group.iter().zip(&all).take_while(|(p, _)| **p != which).map(|(_, n)| n).sum::<usize>();
                let total = all.iter().sum();
                self.ternary(&merged, total, cols, MergedRows { rows: start..start.saturating_add(rows), all })?
            }
            _ => self.ternary(&base, rows, cols, MergedRows { rows: 0..rows, all: vec![rows] })?,
        };
        let in_tensor = |source| LoadError::Ternary { tensor: format!("{base}.weight"), source };
        let w = match heads::rows(c, layer, which, self.names) {
            Some(order) => w.with_row_order(&order).map_err(in_tensor)?,
            None => w,
        };
        let w = match heads::columns(c, layer, which, self.names) {
            Some((order, len)) => heads::permuted(&w, &order, len).map_err(in_tensor)?,
            None => w,
        };
        let heads = match which {
            Projection::Q if mixer == Mixer::Attention => c.num_attention_heads,
            Projection::K if mixer == Mixer::Attention => c.num_key_value_heads,
            _ => return Ok(w),
        };
        match self.reading.qk {
            QkLayout::Half => Ok(w),
            QkLayout::Interleaved => {
                w.with_row_order(&names::interleaved_to_half(heads, c.head_dim)).map_err(in_tensor)
            }
        }
    }

    fn norm(&self, which: Norm) -> Result<Vec<f32>, LoadError> {
        let candidates = self.names.norm(which, self.config());
        let stored = |name: &String| self.store.get(name).transpose();
        let t = match candidates.iter().find_map(stored).transpose()? {
            Some(t) => t,
            None => self.need(candidates.first().map_or("", String::as_str), "the gain of a norm")?,
        };
        t.expect_shape(&[self.config().norm_len(which) as u64])?;
        let mut gain = t.floats()?;
        let offset = match self.names {
            Names::Gguf => 0.0,
            Names::Hf { .. } => (rules(self.reading.family).gain_offset)(which),
        };
        if offset != 0.0 {
            gain.iter_mut().for_each(|w| *w += offset);
        }
        Ok(gain)
    }

    fn bias(&self, layer: usize, which: Projection) -> Result<Vec<f32>, LoadError> {
        let c = self.config();
        let name = self.names.bias(layer, which, c.mixer(layer));
        let t = self.need(&name, "the bias of a projection")?;
        t.expect_shape(&[c.projection_shape(layer, which).0 as u64])?;
        let bias = t.floats()?;
        let heads = match which {
            Projection::Q => c.num_attention_heads,
            Projection::K => c.num_key_value_heads,
            _ => return Ok(bias),
        };
        match self.reading.qk {
            QkLayout::Half => Ok(bias),
            // A bias belongs to a row, and moves with it.
            QkLayout::Interleaved => Ok(names::interleaved_to_half(heads, c.head_dim)
                .into_iter()
                .filter_map(|from| bias.get(from as usize).copied())
                .collect()),
        }
    }

    fn ttt_tensor(&self, layer: usize, which: TttTensor) -> Result<Vec<f32>, LoadError> {
        let shape = self.config().ttt_layer(layer).and_then(|c| which.shape(&c)).unwrap_or_default();
        let t = self.need(&self.names.ttt(layer, which), "part of a test-time-training layer")?;
        t.expect_shape(&shape.iter().map(|&d| d as u64).collect::<Vec<_>>())?;
        t.floats()
    }

    fn delta_tensor(&self, layer: usize, which: DeltaTensor) -> Result<Vec<f32>, LoadError> {
        let c = self.config().delta_layer(layer).ok_or(LoadError::Model(bitnet_model::ModelError::Config {
            field: "mixers",
            value: format!("another one for layer {layer}"),
            must: "the gated delta rule",
        }))?;
        let name = self.names.delta(layer, which);
        let t = self.need(&name, "part of a layer of the gated delta rule")?;
        let mut shape: Vec<u64> = which.shape(&c).iter().map(|&d| d as u64).collect();
        if let (Names::Hf { .. }, DeltaTensor::Conv) = (self.names, which) {
            // A convolution by channels has one input each.
            shape.insert(1, 1);
        }
        t.expect_shape(&shape)?;
        let values = t.floats()?;
        match (self.names, which) {
            // In f64, so that the result is the nearest f32 as converters have it.
            (Names::Hf { .. }, DeltaTensor::Decay) => Ok(values.iter().map(|a| to_f32(-f64::from(*a).exp())).collect()),
            (Names::Hf { .. }, _) => Ok(values),
            (Names::Gguf, _) => Ok(match heads::tensor_rows(&c, which) {
                Some((order, len)) => heads::reordered(&values, &order, len),
                None => values,
            }),
        }
    }

    fn embedding(&self) -> Result<Table, LoadError> {
        let packed = Names::Gguf.embedding();
        match self.packed_matrix(&packed)? {
            Some(w) => Ok(Table::Ternary(w)),
            None => self.with_plane(&packed, self.table(&self.names.embedding(), "the embedding")?),
        }
    }

    fn head(&self) -> Result<Table, LoadError> {
        let packed = Names::Gguf.head();
        match self.packed_matrix(&packed)? {
            Some(w) => Ok(Table::Ternary(w)),
            None => self.with_plane(&packed, self.table(&self.names.head(), "the head")?),
        }
    }
}
