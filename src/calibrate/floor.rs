//! How many layers stay in floating point, for the promised cosine.
//!
//! Pure but for what measures. Layers are ordered by what each costs alone; of those that cost the most as few stay as
//! is enough, found by halving: the more stay, the closer it comes.

/// Least cosine to fp32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Floor {
    pub(super) mean: f64,
    pub(super) min: f64,
}

/// Of embeddings to those in fp32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cosine {
    pub(super) mean: f64,
    pub(super) min: f64,
}

/// What was found.
#[derive(Debug, PartialEq)]
pub(super) struct Kept {
    /// Layers that stay in floating point, the costliest first.
    pub(super) layers: Vec<String>,
    pub(super) cosine: Cosine,
    /// With none of them kept.
    pub(super) all_rounded: Cosine,
}

/// Why not.
#[derive(Debug)]
pub(super) enum Unmet<E> {
    /// So close it comes with all layers in floating point.
    Float(Cosine),
    Measuring(E),
}

impl Floor {
    fn is_met(self, cosine: Cosine) -> bool {
        cosine.mean >= self.mean && cosine.min >= self.min
    }

    /// `measure` is the cosine with these layers rounded, `alone` a quicker one with this layer alone.
    pub(super) fn keep<E>(
        self,
        layers: &[String],
        measure: &mut dyn FnMut(&[String]) -> Result<Cosine, E>,
        alone: &mut dyn FnMut(&String) -> Result<Cosine, E>,
    ) -> Result<Kept, Unmet<E>> {
        let all_rounded = measure(layers).map_err(Unmet::Measuring)?;
        if self.is_met(all_rounded) {
            return Ok(Kept { layers: vec![], cosine: all_rounded, all_rounded });
        }
        let cost = |layer: &String| alone(layer).map(|cosine| (1.0 - cosine.mean, layer.clone()));
        let mut costs = layers.iter().map(cost).collect::<Result<Vec<_>, _>>().map_err(Unmet::Measuring)?;
        costs.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let ordered: Vec<String> = costs.into_iter().map(|(_, layer)| layer).collect();
        // More than `too_few` have to stay; `enough` are.
        let (mut too_few, mut enough, mut found) = (0, ordered.len(), None);
        while found.is_none() || enough - too_few > 1 {
            let count = if found.is_none() { enough } else { too_few.midpoint(enough) };
            let cosine = measure(&ordered[count..]).map_err(Unmet::Measuring)?;
            match (self.is_met(cosine), found.is_none()) {
                (true, _) => (enough, found) = (count, Some(cosine)),
                (false, true) => return Err(Unmet::Float(cosine)),
                (false, false) => too_few = count,
            }
        }
        let cosine = found.expect("the loop ends with one");
        Ok(Kept { layers: ordered[..enough].to_vec(), cosine, all_rounded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers `0`, `1`, ... cost so many millionths each, beside `always`.
    fn check(costs: &[f64], always: f64, mean: f64) -> Result<Vec<String>, Cosine> {
        let layers: Vec<String> = (0..costs.len()).map(|number| number.to_string()).collect();
        let cosine = |rounded: &[String]| {
            let cost: f64 = rounded.iter().map(|layer| costs[layer.parse::<usize>().unwrap()]).sum();
            let mean = 1.0 - (cost + always) * 1e-6;
            Cosine { mean, min: mean - 1e-3 }
        };
        let floor = Floor { mean, min: 0.99 };
        let mut measured = 0;
        let kept = floor.keep::<()>(
            &layers,
            &mut |rounded| {
                measured += 1;
                Ok(cosine(rounded))
            },
            &mut |layer| Ok(cosine(std::slice::from_ref(layer))),
        );
        assert!(measured <= 2 + costs.len().ilog2() + 1, "{measured} measurements");
        match kept {
            Ok(kept) => {
                assert!(kept.cosine.mean >= mean, "{kept:?}");
                Ok(kept.layers)
            }
            Err(Unmet::Float(cosine)) => Err(cosine),
            Err(Unmet::Measuring(())) => unreachable!("it never fails"),
        }
    }

    #[test]
    fn the_costliest_layers_stay_and_no_more_than_is_enough() {
        let costs = [10.0, 500.0, 20.0, 300.0, 5.0];
        assert_eq!(check(&costs, 0.0, 0.999), Ok(vec![]));
        assert_eq!(check(&costs, 0.0, 0.9995), Ok(vec!["1".into()]));
        assert_eq!(check(&costs, 0.0, 0.9999), Ok(vec!["1".into(), "3".into()]));
        assert_eq!(check(&costs, 0.0, 1.0).unwrap().len(), 5);
    }

    #[test]
    fn what_floating_point_does_not_reach_is_not_promised() {
        let cosine = check(&[10.0, 20.0], 600.0, 0.9995).unwrap_err();
        assert!((cosine.mean - 0.9994).abs() < 1e-9, "{cosine:?}");
    }
}
